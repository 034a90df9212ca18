"""Backends that refuse, stall, break off or talk nonsense: always an answer in time, never another request's bytes."""

import threading
import time

import pytest

import paifang
import upstreams
import wire

HOST = "backends.localtest"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def _say(data):
    return lambda connection, head, body: connection.sendall(data)


def _say_and_close(data):
    def answer(connection, head, body):
        connection.sendall(data)
        return False

    return answer


def _drip(connection, head, body):
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(5):
        connection.sendall(b"4\r\ndrip\r\n")
        time.sleep(0.2)
    connection.sendall(b"0\r\n\r\n")


def _head_drip(connection, head, body):
    """A head that never ends, a byte at a time: it must not hold the call beyond its timeout."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-A: ")
    for _ in range(200):
        connection.sendall(b"a")
        time.sleep(0.1)
    return False


def _poison(connection, head, body):
    connection.sendall(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")


def _stalls_in_body(connection, head, body):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes!")
    time.sleep(30)
    return False


BIG = 64 * 1024 * 1024


def _endless_head(connection, head, body):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(4000):
        connection.sendall(b"X-%d: %s\r\n" % (number, b"a" * 1000))
    connection.sendall(b"Content-Length: 2\r\n\r\nok")
    return False


def _big(connection, head, body):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
    block = b"b" * 65536
    for _ in range(BIG // len(block)):
        connection.sendall(block)


def _hints(connection, head, body):
    connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2000 + OK)


# Backends whose answer cannot be used: the caller gets a 5xx of the gateway, in time.
UNUSABLE = {
    "closes-at-once": _say_and_close(b""),
    "resets-at-once": upstreams.say_and_reset(b""),
    "garbage": _say_and_close(b"\x16\x03\x01 this is no HTTP \x00\xff\r\n\r\n"),
    "half-a-head": _say_and_close(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "reset-in-head": upstreams.say_and_reset(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "status-line-broken": _say_and_close(b"HTTP/1.1 OK 200\r\n\r\n"),
    "status-99": _say_and_close(b"HTTP/1.1 99 Nothing\r\nContent-Length: 0\r\n\r\n"),
    "length-conflicting": _say_and_close(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!"),
    "length-broken": _say_and_close(b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok"),
    "nul-in-header": _say_and_close(b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 2\r\n\r\nok"),
    "endless-head": _endless_head,
    "silent": upstreams.silent,
    "head-in-drips": _head_drip,
}

# Backends that break off after the head: the caller must be able to tell that the answer is not whole.
CUT = {
    "closes-in-body": _say_and_close(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes!"),
    "resets-in-body": upstreams.say_and_reset(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes!"),
    "chunks-cut": _say_and_close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    "chunks-broken": _say_and_close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"),
}

FINE = {"drip": _drip, "poison": _poison, "big": _big, "hints": _hints, "stalls-in-body": _stalls_in_body}


@pytest.fixture(scope="module")
def upstream_ports():
    running = {name: upstreams.answering(answer) for name, answer in {**UNUSABLE, **CUT, **FINE}.items()}
    yield {name: upstream.port for name, upstream in running.items()}
    for upstream in running.values():
        upstream.close()


@pytest.fixture(scope="module")
def gateway(module_start, upstream_ports):
    ports = {**upstream_ports, "refuses": paifang.free_port()}
    return module_start([
        *paifang.group("backends", HOST),
        *(paifang.api(name, "backends", f"/{name}", {**paifang.http_backend(port), "timeout": "30s" if name == "big" else "2s"}, method="ANY")
          for name, port in ports.items()),
        paifang.api("fine", "backends", "/fine", paifang.mock("fine")),
    ])


def call(gateway, name, **options):
    started = time.monotonic()
    answer = wire.get(gateway.address("http"), f"/{name}", HOST, **options)
    return answer, time.monotonic() - started


def fine(gateway):
    answer, _ = call(gateway, "fine")
    assert (answer.status, answer.body) == (200, b"fine")


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_answer_becomes_a_5xx_in_time(gateway, name):
    for _ in range(2):
        answer, seconds = call(gateway, name)
        assert answer is not None and answer.status in (502, 503, 504), answer
        assert answer.code and answer.code[1:4] == str(answer.status), answer.headers
        assert answer.header("x-ca-request-id")
        assert seconds < 10
    fine(gateway)


def test_a_backend_that_is_not_there(gateway):
    answer, _ = call(gateway, "refuses")
    assert (answer.status, answer.code) == (504, "D504CO")


def test_a_silent_backend_costs_the_apis_timeout_and_no_more(gateway):
    answer, seconds = call(gateway, "silent")
    assert (answer.status, answer.code) == (504, "D504TO")
    assert 1.5 < seconds < 10


@pytest.mark.parametrize("name", CUT)
def test_a_cut_answer_looks_cut(gateway, name):
    with pytest.raises((ConnectionError, ValueError)):
        answer, _ = call(gateway, name)
        assert answer.status != 200 or answer.closed, "a whole answer was made out of a cut one"
        # A 5xx instead is as good: the gateway had not begun to answer.
        assert answer.status in (502, 503, 504)
        raise ConnectionError("refused as a whole")
    fine(gateway)


def test_a_stall_in_the_body_ends(gateway):
    started = time.monotonic()
    with pytest.raises(ConnectionError):
        call(gateway, "stalls-in-body", timeout=60)
    assert time.monotonic() - started < 59
    fine(gateway)


def test_bytes_after_an_answer_are_nobodys_answer(gateway):
    for _ in range(20):
        answer, _ = call(gateway, "poison")
        assert answer.body != b"poison"
        assert answer.status in (200, 502)
    fine(gateway)


def test_an_answer_is_passed_on_as_it_comes(gateway):
    """The first bytes are here long before the last are sent."""
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(f"GET /drip HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        started = time.monotonic()
        while b"drip" not in connection.buffer:
            assert connection._more()
        first = time.monotonic() - started
        answer = connection.answer()
        assert answer.body == b"drip" * 5
        assert first < (time.monotonic() - started) - 0.5


def test_informational_answers_do_not_confuse(gateway):
    answer, seconds = call(gateway, "hints")
    assert answer.status in (200, 502)
    assert answer.status == 502 or answer.body == b"ok"
    fine(gateway)


def test_a_large_answer_to_a_slow_reader_is_not_collected_in_memory(gateway):
    def resident():
        with open(f"/proc/{gateway.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024

    before, highest, total = resident(), 0, 0
    connections = [wire.Connection(gateway.address("http"), timeout=30) for _ in range(4)]
    try:
        for connection in connections:
            connection.send(f"GET /big HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        time.sleep(1.5)
        highest = max(highest, resident())
        for connection in connections[1:]:
            connection.close()
        answer = connections[0].answer()
        assert len(answer.body) == BIG
    finally:
        for connection in connections:
            connection.close()
    assert highest - before < 48 * 1024 * 1024, f"{(highest - before) >> 20} MiB for 4 answers of {BIG >> 20} MiB"
    fine(gateway)


def test_a_backend_that_closes_idle_connections_fails_nobody(start, folder):
    """It closes after every answer without saying so; each next call finds its pooled connection dead."""
    upstream = upstreams.answering(_say_and_close(OK))
    folder.write("all.yaml", *paifang.group("idle", HOST), paifang.api("a", "idle", "/a", paifang.http_backend(upstream.port)))
    gateway = start(folder)
    for _ in range(40):
        answer = wire.get(gateway.address("http"), "/a", HOST)
        assert answer.status == 200, (answer.status, answer.code)
        time.sleep(0.02)
    upstream.close()


def test_an_early_answer_to_an_upload_reaches_the_caller(start, folder):
    """The backend refuses after the head and closes; the caller is still sending."""
    def serve(connection, _):
        while b"\r\n\r\n" not in connection.recv(65536):
            pass
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        time.sleep(0.5)

    upstream = upstreams.Upstream(serve)
    folder.write("all.yaml", *paifang.group("early", HOST), paifang.api("a", "early", "/a", paifang.http_backend(upstream.port), method="POST"))
    gateway = start(folder)
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(f"POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n".encode() + b"a" * 1000)
        answer = connection.answer()
    assert (answer.status, answer.body) == (403, b"no")
    assert answer.code is None, "the backend's answer is the backend's"
    upstream.close()


def test_what_a_backend_says_is_passed_on_unchanged(start, folder):
    answers = b"HTTP/1.1 418 I am a teapot\r\nContent-Length: 3\r\nX-A: 1\r\nX-A: 2\r\nServer: tea\r\nSet-Cookie: a=b\r\nKeep-Alive: timeout=1\r\n\r\ntea"
    upstream = upstreams.answering(_say(answers))
    folder.write("all.yaml", *paifang.group("same", HOST), paifang.api("a", "same", "/a", paifang.http_backend(upstream.port)))
    gateway = start(folder)
    answer = wire.get(gateway.address("http"), "/a", HOST)
    assert (answer.status, answer.body) == (418, b"tea")
    assert answer.all("x-a") == ["1", "2"] and answer.header("server") == "tea" and answer.header("set-cookie") == "a=b"
    assert answer.header("keep-alive") != "timeout=1"
    assert answer.header("x-ca-request-id") and answer.code is None
    upstream.close()


def test_many_callers_never_get_each_others_answers(start, folder):
    def mirror(connection, head, body):
        tag = head.split(b"\r\n")[0].split(b" ")[1]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(tag), tag))

    upstream = upstreams.answering(mirror)
    folder.write("all.yaml", *paifang.group("mirror", HOST),
                 paifang.api("a", "mirror", "/m/*", {**paifang.http_backend(upstream.port), "path": "/m/*"}))
    gateway = start(folder)
    wrong = []

    def caller(number):
        with wire.Connection(gateway.address("http")) as connection:
            for step in range(100):
                target = f"/m/{number}-{step}"
                connection.send(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                answer = connection.answer()
                if (answer.status, answer.body.decode()) != (200, target):
                    wrong.append((target, answer))

    threads = [threading.Thread(target=caller, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong, wrong[:3]
    upstream.close()
