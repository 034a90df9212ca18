"""SIGTERM: what is in flight finishes, what is open is told to go, what is new is not taken, and then it ends."""

import os
import signal
import socket
import subprocess
import time

import pytest

import paifang
import upstreams
import wire

HOST = "drain.localtest"


@pytest.fixture
def slow():
    def answer(connection, head, body):
        time.sleep(1.5)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")

    upstream = upstreams.answering(answer)
    yield upstream
    upstream.close()


def prepare(folder, slow, certificates):
    pair = certificates.issue("drain", HOST)
    folder.write("all.yaml", *paifang.group("drain"),
                 paifang.secret("drain-tls", "kubernetes.io/tls", **{"tls.crt": pair[0], "tls.key": pair[1]}),
                 paifang.binding("drain", "drain", HOST, tls={"secretRef": {"name": "drain-tls"}}),
                 paifang.api("fast", "drain", "/fast", paifang.mock("fast")),
                 paifang.api("slow", "drain", "/slow", paifang.http_backend(slow.port)))
    return folder


def ask(connection, path):
    return connection.send(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())


@pytest.mark.parametrize("listener", ["http", "https"])
def test_what_is_in_flight_finishes(start, folder, slow, certificates, listener):
    gateway = start(prepare(folder, slow, certificates))
    options = dict(tls=wire.trusting(certificates.path), server_name=HOST) if listener == "https" else {}
    with wire.Connection(gateway.address(listener), **options) as busy:
        ask(busy, "/slow")
        time.sleep(0.3)
        os.kill(gateway.process.pid, signal.SIGTERM)
        answer = busy.answer()
        assert (answer.status, answer.body) == (200, b"slow")
        assert (answer.header("connection") or "").lower() == "close"
        assert busy.ended()
    assert gateway.process.wait(20) == 0


def test_http2_streams_in_flight_finish(start, folder, slow, certificates):
    """With curl: Python's h2 takes any GOAWAY for the end of everything."""
    gateway = start(prepare(folder, slow, certificates))
    port = gateway.port("https")
    url = f"https://{HOST}:{port}/slow"
    command = ["curl", "-sS", "--http2", "--cacert", str(certificates.path), "--resolve", f"{HOST}:{port}:127.0.0.1",
               "-Z", "-w", " %{http_version} %{http_code}\n", *([url] * 4)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(0.7)
    os.kill(gateway.process.pid, signal.SIGTERM)
    output, _ = client.communicate(timeout=30)
    assert client.returncode == 0 and output.count("slow") == 4 and output.count("2 200") == 4, output
    assert gateway.process.wait(20) == 0


def test_an_idle_connection_is_let_go_and_nothing_waits_for_it(start, folder, slow, certificates):
    gateway = start(prepare(folder, slow, certificates))
    with wire.Connection(gateway.address("http")) as idle:
        assert ask(idle, "/fast").answer().body == b"fast"
        started = time.monotonic()
        assert gateway.terminate(30) == 0
        assert time.monotonic() - started < 15
        assert idle.ended()


def test_no_request_fails_while_a_busy_gateway_drains(start, folder, slow, certificates):
    """A kept connection under constant use: each request sent is answered, until an answer says close."""
    gateway = start(prepare(folder, slow, certificates))
    with wire.Connection(gateway.address("http")) as connection:
        for number in range(10_000):
            if number == 200:
                os.kill(gateway.process.pid, signal.SIGTERM)
            answer = ask(connection, "/fast").answer()
            assert answer is not None, f"request {number} was dropped"
            assert answer.status == 200
            if (answer.header("connection") or "").lower() == "close":
                break
        else:
            pytest.fail("it was never told to close")
        assert number >= 200
    assert gateway.process.wait(20) == 0


def test_readiness_ends_first(start, folder, slow, certificates):
    gateway = start(prepare(folder, slow, certificates))
    assert wire.get(gateway.address("admin"), "/readyz", "localhost").status == 200
    assert wire.get(gateway.address("admin"), "/livez", "localhost").status == 200
    with wire.Connection(gateway.address("http")) as busy:
        ask(busy, "/slow")
        time.sleep(0.2)
        os.kill(gateway.process.pid, signal.SIGTERM)
        time.sleep(0.2)
        try:
            assert wire.get(gateway.address("admin"), "/readyz", "localhost", timeout=5).status == 503
        except (ConnectionError, socket.timeout):
            pass
        assert busy.answer().status == 200
    assert gateway.process.wait(20) == 0


def test_nothing_is_left_behind(start, folder, slow, certificates):
    gateway = start(prepare(folder, slow, certificates))
    ports = [gateway.address(name) for name in ("http", "https", "internal", "admin")]
    assert gateway.terminate(30) == 0
    for address in ports:
        with pytest.raises(OSError):
            socket.create_connection(address, timeout=2).close()
