"""Clients that are slow, go half-way, or vanish: they cost little, and nobody else notices."""

import time

import pytest

import paifang
import upstreams
import wire

HOST = "slow.localtest"
HEAD = f"Host: {HOST}\r\n"
# Timeouts are settings; the defaults must end a stalled caller within this.
PATIENCE = 90


@pytest.fixture(scope="module")
def gateway(module_start, recorder):
    return module_start([
        *paifang.group("slow", HOST),
        paifang.api("all", "slow", "/all/*", {**paifang.http_backend(recorder.port), "path": "/*", "timeout": "20s"}, method="ANY"),
        paifang.api("fine", "slow", "/fine", paifang.mock("fine")),
    ])


def fine(gateway):
    started = time.monotonic()
    assert wire.get(gateway.address("http"), "/fine", HOST).body == b"fine"
    assert time.monotonic() - started < 5


def test_a_head_in_single_bytes_is_a_head(gateway):
    with wire.Connection(gateway.address("http")) as connection:
        for byte in f"GET /fine HTTP/1.1\r\n{HEAD}\r\n".encode():
            connection.send(bytes([byte]))
            time.sleep(0.002)
        assert connection.answer().body == b"fine"


def test_a_body_in_single_bytes_is_a_body(gateway, recorder):
    recorder.clear()
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(f"POST /all/a HTTP/1.1\r\n{HEAD}Content-Length: 20\r\n\r\n".encode())
        for byte in b"twenty bytes of body":
            connection.send(bytes([byte]))
            time.sleep(0.01)
        assert connection.answer().status == 200
    assert recorder.received().endswith(b"twenty bytes of body")


@pytest.mark.timeout(PATIENCE + 60)
def test_a_head_that_never_ends_is_closed(gateway):
    with wire.Connection(gateway.address("http"), timeout=PATIENCE) as connection:
        connection.send(f"GET /fine HTTP/1.1\r\n{HEAD}X-A: ".encode())
        fine(gateway)
        assert connection.ended(), f"still open after {PATIENCE} s"
    fine(gateway)


@pytest.mark.timeout(PATIENCE + 60)
def test_a_head_in_endless_drips_is_closed(gateway):
    """Each byte comes in time; the head as a whole does not."""
    deadline = time.monotonic() + PATIENCE
    with wire.Connection(gateway.address("http"), timeout=1) as connection:
        connection.send(f"GET /fine HTTP/1.1\r\n{HEAD}X-A: ".encode())
        try:
            while time.monotonic() < deadline:
                connection.send(b"a")
                if connection.ended():
                    break
        except (ConnectionError, BrokenPipeError):
            pass
    assert time.monotonic() < deadline, f"still open after {PATIENCE} s"
    fine(gateway)


@pytest.mark.timeout(PATIENCE + 60)
def test_a_body_that_never_comes_is_closed(gateway):
    started = time.monotonic()
    with wire.Connection(gateway.address("http"), timeout=PATIENCE) as connection:
        connection.send(f"POST /all/a HTTP/1.1\r\n{HEAD}Content-Length: 100\r\n\r\nhalf".encode())
        answer = connection.answer()
        assert answer is None or answer.status in (400, 408, 502, 504), answer
    assert time.monotonic() - started < PATIENCE
    fine(gateway)


def test_a_caller_that_sends_all_and_closes_its_half_is_answered(gateway):
    for target in ("/fine", "/all/a"):
        with wire.Connection(gateway.address("http")) as connection:
            connection.send(f"GET {target} HTTP/1.1\r\n{HEAD}\r\n".encode()).finish()
            answer = connection.answer()
            assert answer is not None and answer.status == 200, target


def test_half_a_request_and_goodbye_reaches_nobody(gateway, recorder):
    for data in (f"GET /all/a HTTP/1.1\r\n{HEAD}", f"POST /all/a HTTP/1.1\r\n{HEAD}Content-Length: 100\r\n\r\nhalf",
                 f"POST /all/a HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nhel"):
        recorder.clear()
        with wire.Connection(gateway.address("http")) as connection:
            connection.send(data.encode()).finish()
            answer = connection.answer()
            assert answer is None or answer.status >= 400, data
        assert not recorder.received().endswith(b"0\r\n\r\n"), "a cut body was ended well"
    fine(gateway)


def test_a_reset_in_the_body_is_passed_on_as_a_cut(gateway, recorder):
    recorder.clear()
    connection = wire.Connection(gateway.address("http"))
    connection.send(f"POST /all/a HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".encode())
    upstreams.until(lambda: b"hello" in recorder.received(), 5)
    connection.reset()
    time.sleep(0.3)
    assert not recorder.received().endswith(b"0\r\n\r\n")
    fine(gateway)


def test_a_caller_that_leaves_frees_the_backend(start, folder):
    """The backend streams for ever; when its caller is gone, so is the connection to it."""
    ended = []

    def stream(connection, head, body):
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                connection.sendall(b"4\r\ntick\r\n")
                time.sleep(0.02)
        except OSError:
            ended.append(time.monotonic())
        return False

    upstream = upstreams.answering(stream)
    folder.write("all.yaml", *paifang.group("leave", HOST), paifang.api("a", "leave", "/a", paifang.http_backend(upstream.port)))
    gateway = start(folder)
    connection = wire.Connection(gateway.address("http"))
    connection.send(f"GET /a HTTP/1.1\r\n{HEAD}\r\n".encode())
    while b"tick" not in connection.buffer:
        assert connection._more()
    connection.reset()
    assert upstreams.until(lambda: ended, 10), "the backend still streams to nobody"
    upstream.close()


def test_two_hundred_stalled_callers_disturb_nobody(gateway):
    stalled = [wire.Connection(gateway.address("http")) for _ in range(200)]
    try:
        for connection in stalled:
            connection.send(f"GET /fine HTTP/1.1\r\n{HEAD}X-A: ".encode())
        for _ in range(20):
            fine(gateway)
    finally:
        for connection in stalled:
            connection.close()


def test_a_caller_may_wait_for_permission_to_send(gateway, recorder):
    recorder.clear()
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(f"POST /all/a HTTP/1.1\r\n{HEAD}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
        while b"\r\n\r\n" not in connection.buffer:
            assert connection._more()
        assert connection.buffer.startswith(b"HTTP/1.1 100 ")
        assert connection.send(b"hello").answer().status == 200
    assert recorder.received().endswith(b"hello")


def test_a_refused_caller_is_not_asked_to_send(gateway):
    """404 comes instead of 100: the body need not travel."""
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(f"POST /nowhere HTTP/1.1\r\n{HEAD}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
        while b"\r\n\r\n" not in connection.buffer:
            assert connection._more()
        assert connection.buffer.startswith(b"HTTP/1.1 404 "), connection.buffer[:80]
