"""WebSocket passed through to a backend, with the library `websockets` on both sides."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import threading
import time

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

import paifang
import upstreams
import wire

HOST = "ws.localtest"
CLOSED = "closed.localtest"
SECURE = "wss.localtest"
GOING_AWAY = 1001


def choose(_, offered):
    """A server that knows `chat` and `other`, and takes who offers none."""
    return next((one for one in offered if one in ("chat", "other")), None)


class EchoServer:
    """Sends back what it gets; `/hello` says something by itself first. Remembers the heads of its handshakes."""

    def __init__(self, tls=None):
        self.handshakes, self.farewells, self.port = [], [], None
        self._tls, self._ready = tls, threading.Event()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()
        assert self._ready.wait(10)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._stop = self._loop.create_future()
        self._loop.run_until_complete(self._main())

    async def _main(self):
        async with serve(self._echo, "127.0.0.1", 0, ssl=self._tls, select_subprotocol=choose, max_size=None) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop

    async def _echo(self, connection):
        self.handshakes.append(connection.request)
        with contextlib.suppress(ConnectionClosed):
            if connection.request.path.endswith("/hello"):
                await connection.send("hello")
            if connection.request.path.endswith("/bye"):
                await connection.close(4321, "bye")
            async for message in connection:
                await connection.send(message)
        if connection.close_code == GOING_AWAY:
            self.farewells.append(connection.close_code)

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set_result, None)


def api(name, path, port, *, scheme="http", protocols=("HTTP", "WEBSOCKET"), **spec):
    backend = {"http": {"address": f"{scheme}://127.0.0.1:{port}"}, "timeout": "2s", **spec.pop("backend", {})}
    return paifang.api(name, "ws", path, backend, protocols=protocols, **spec)


@pytest.fixture(scope="module")
def echo():
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def secure_echo(certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain, key = certificates.files("ws", certificates.issue("ws", "ws.internal"))
    context.load_cert_chain(chain, key)
    server = EchoServer(context)
    yield server
    server.close()


def _refusing(connection, head, body):
    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nX-Why: gone\r\n\r\ngone")


def _other_protocol(connection, head, body):
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chess\r\n\r\n")
    time.sleep(1)
    return False


@pytest.fixture(scope="module")
def gateway(module_start, echo, secure_echo, certificates, tmp_path_factory):
    refusing, other = upstreams.answering(_refusing), upstreams.answering(_other_protocol)
    chain, key = certificates.issue("front", SECURE)
    yield module_start([
        *paifang.group("ws"),
        paifang.binding("open", "ws", HOST, webSocket=True),
        paifang.binding("closed", "ws", CLOSED),
        paifang.binding("secure", "ws", SECURE, webSocket=True, tls={"secretRef": {"name": "front"}}),
        paifang.secret("front", "kubernetes.io/tls", **{"tls.crt": chain, "tls.key": key}),
        paifang.secret("ca", **{"ca.crt": certificates.pem}),
        api("echo", "/ws/*", echo.port),
        api("over-tls", "/wss/*", secure_echo.port, scheme="https",
            backend={"http": {"address": f"https://127.0.0.1:{secure_echo.port}",
                              "tls": {"caSecretRef": {"name": "ca"}, "serverName": "ws.internal"}}}),
        api("plain", "/plain", echo.port, protocols=("HTTP",)),
        api("mapped", "/mapped", echo.port, mode="Mapping"),
        api("refusing", "/refusing", refusing.port),
        api("other", "/other", other.port),
        api("dead", "/dead", paifang.free_port()),
        paifang.api("function", "ws", "/function", {"functionCompute": {"url": f"http://127.0.0.1:{echo.port}", "kind": "HTTP"}},
                    protocols=("HTTP", "WEBSOCKET")),
        api("signed", "/signed", echo.port, auth={"type": "App", "appCode": "Header"}),
        paifang.app("caller", code="c" * 32)[0], *paifang.app("caller", code="c" * 32)[1:],
        paifang.authorization("calls", "ws", ["caller"]),
    ], extra=("--stream-idle-timeout", "3s", "--drain-timeout", "20s"))
    refusing.close()
    other.close()


def dial(gateway, path, host=HOST, listener="http", **options):
    scheme = "wss" if listener == "https" else "ws"
    address, port = gateway.address(listener)
    return connect(f"{scheme}://{host}{path}", host=address, port=port, proxy=None, max_size=None, **options)


def log_line(gateway, path, count=1):
    def found():
        lines = [json.loads(line) for line in gateway.text().splitlines() if line.startswith("{") and f'"path":"{path}"' in line]
        return lines if len(lines) >= count else None

    lines = upstreams.until(found)
    assert lines, gateway.text()
    return lines[-1]


def metric(gateway, name):
    answer = wire.get(gateway.address("admin"), "/metrics", "admin")
    values = [line.split()[-1] for line in answer.body.decode().splitlines() if line.startswith(name + " ")]
    assert values, f"{name} is not among the metrics"
    return float(values[0])


def test_messages_of_all_sizes_both_ways(gateway):
    async def talk():
        async with dial(gateway, "/ws/sizes") as socket_:
            for message in ["", "hi", "张三", b"", b"\0\xff", os.urandom(200), os.urandom(70_000), os.urandom(3 << 20)]:
                await socket_.send(message)
                assert await socket_.recv() == message

    asyncio.run(talk())
    line = log_line(gateway, "/ws/sizes")
    assert line["status"] == 101
    assert line["received_bytes"] > 3 << 20 and line["sent_bytes"] > 3 << 20


def test_the_server_may_speak_first_and_close_first(gateway):
    async def talk():
        async with dial(gateway, "/ws/hello") as socket_:
            assert await socket_.recv() == "hello"
        async with dial(gateway, "/ws/bye") as socket_:
            with pytest.raises(ConnectionClosed) as closed:
                await socket_.recv()
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "bye")

    asyncio.run(talk())


@pytest.mark.parametrize("path", ["/ws/negotiated", "/mapped"])
def test_the_handshake_passes_whole(gateway, echo, path):
    """Subprotocol and extensions are between the two ends; the gateway's own headers are there too."""
    async def talk():
        async with dial(gateway, path, subprotocols=["none", "chat"]) as socket_:
            assert socket_.subprotocol == "chat"
            assert "permessage-deflate" in socket_.response.headers["Sec-WebSocket-Extensions"]
            assert socket_.response.headers["X-Ca-Request-Id"]
            await socket_.send("a" * 10_000)
            assert await socket_.recv() == "a" * 10_000
            return socket_.response.headers["X-Ca-Request-Id"]

    before = len(echo.handshakes)
    request_id = asyncio.run(talk())
    head = echo.handshakes[before].headers
    assert head["X-Ca-Request-Id"] == request_id
    assert head["X-Forwarded-For"] == "127.0.0.1"


def test_a_backend_over_tls(gateway):
    async def talk():
        async with dial(gateway, "/wss/a") as socket_:
            await socket_.send("secret")
            assert await socket_.recv() == "secret"

    asyncio.run(talk())


def test_a_client_over_tls(gateway, certificates):
    async def talk():
        async with dial(gateway, "/ws/front", SECURE, "https", ssl=wire.trusting(certificates.path), server_hostname=SECURE) as socket_:
            await socket_.send("secret")
            assert await socket_.recv() == "secret"

    asyncio.run(talk())


def refused(gateway, path, host=HOST, **options):
    async def talk():
        with pytest.raises(InvalidStatus) as found:
            async with dial(gateway, path, host, **options):
                pass
        return found.value.response

    return asyncio.run(talk())


def test_only_what_is_asked_as_mapped_can_go_over_to_it(gateway, echo):
    before = len(echo.handshakes)
    answer = refused(gateway, "/function")
    assert (answer.status_code, answer.headers["X-Ca-Error-Code"]) == (403, "I403PT")
    assert len(echo.handshakes) == before


@pytest.mark.parametrize("path, host", [("/plain", HOST), ("/ws/a", CLOSED)])
def test_an_api_and_a_domain_must_both_be_open_to_it(gateway, path, host):
    answer = refused(gateway, path, host)
    assert (answer.status_code, answer.headers["X-Ca-Error-Code"]) == (403, "I403PT")


def test_credentials_are_asked_for_as_ever(gateway):
    answer = refused(gateway, "/signed")
    assert (answer.status_code, answer.headers["X-Ca-Error-Code"]) == (400, "A400MA")

    async def talk():
        async with dial(gateway, "/signed", additional_headers={"Authorization": "APPCODE " + "c" * 32}) as socket_:
            await socket_.send("in")
            assert await socket_.recv() == "in"

    asyncio.run(talk())


def test_a_backend_that_says_no_is_passed_on(gateway):
    answer = refused(gateway, "/refusing")
    assert (answer.status_code, answer.body, answer.headers["X-Why"]) == (404, b"gone", "gone")
    assert "X-Ca-Error-Code" not in answer.headers


@pytest.mark.parametrize("path, status, code", [("/dead", 504, "D504CO"), ("/other", 502, "N502RE")])
def test_backends_that_cannot(gateway, path, status, code):
    answer = refused(gateway, path)
    assert (answer.status_code, answer.headers["X-Ca-Error-Code"]) == (status, code)


@pytest.mark.parametrize("upgrade", ["h2c", "chess", "websocket, chess"])
def test_no_other_upgrade_is_passed_on(gateway, recorder, start, folder, upgrade):
    folder.write("all.yaml", *paifang.group("other"), paifang.binding("d", "other", HOST, webSocket=True),
                 paifang.api("a", "other", "/a", paifang.http_backend(recorder.port), protocols=("HTTP", "WEBSOCKET")))
    other = start(folder)
    recorder.clear()
    answer = wire.get(other.address("http"), "/a", HOST, [("Connection", "Upgrade"), ("Upgrade", upgrade)])
    assert answer.status == 200
    assert b"upgrade" not in recorder.received().lower()


def test_half_close_lets_the_other_direction_end(gateway, start, folder):
    """After 101 it is bytes: one side says that it has ended, and still hears the other."""
    def serve(connection, _):
        found = upstreams.read_request(connection)
        assert b"websocket" in found[0].lower()
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst;")
        seen = found[2]
        while data := connection.recv(65536):
            seen += data
        connection.sendall(b"saw " + seen + b";last")

    upstream = upstreams.Upstream(serve)
    folder.write("all.yaml", *paifang.group("half"), paifang.binding("d", "half", HOST, webSocket=True),
                 paifang.api("a", "half", "/a", paifang.http_backend(upstream.port), protocols=("WEBSOCKET",)))
    half = start(folder)
    with wire.Connection(half.address("http")) as connection:
        connection.send(f"GET /a HTTP/1.1\r\nHost: {HOST}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n".encode())
        while b"first;" not in connection.buffer:
            assert connection._more()
        assert connection.buffer.startswith(b"HTTP/1.1 101 ")
        connection.send(b"abc").finish()
        while connection._more():
            pass
        assert connection.buffer.endswith(b"first;saw abc;last")
    upstream.close()


def test_silence_ends_it_and_a_word_in_time_keeps_it(gateway):
    async def talk():
        async with dial(gateway, "/ws/quiet", ping_interval=None) as socket_:
            for _ in range(3):
                await asyncio.sleep(1.5)
                await socket_.send("still here")
                assert await socket_.recv() == "still here"
            began = time.monotonic()
            with pytest.raises(ConnectionClosed) as closed:
                await socket_.recv()
            assert closed.value.rcvd.code == GOING_AWAY
            return time.monotonic() - began

    assert 2 < asyncio.run(talk()) < 20
    assert log_line(gateway, "/ws/quiet")["cut"] is True


def test_it_outlives_the_apis_timeout_and_is_counted(gateway):
    async def talk():
        before = metric(gateway, "paifang_upgrades_total"), metric(gateway, "paifang_upgrades_open")
        async with dial(gateway, "/ws/long") as socket_:
            assert upstreams.until(lambda: metric(gateway, "paifang_upgrades_open") == before[1] + 1)
            await asyncio.sleep(2.5)
            await socket_.send("late")
            assert await socket_.recv() == "late"
        assert upstreams.until(lambda: metric(gateway, "paifang_upgrades_open") == before[1])
        assert metric(gateway, "paifang_upgrades_total") == before[0] + 1

    asyncio.run(talk())


def test_unrelated_changes_leave_it_alone(start, folder, echo):
    def objects(number):
        return [*paifang.group("ws"), paifang.binding("open", "ws", HOST, webSocket=True), api("echo", "/ws/*", echo.port),
                *paifang.group(f"other{number}"), paifang.api("m", f"other{number}", "/m", paifang.mock(str(number)))]

    folder.write("all.yaml", *objects(0))
    gateway = start(folder)

    async def talk():
        async with dial(gateway, "/ws/steady") as socket_:
            for number in range(1, 6):
                folder.write("all.yaml", *objects(number))
                await asyncio.sleep(0.2)
                await socket_.send(str(number))
                assert await socket_.recv() == str(number)

    asyncio.run(talk())


def test_a_drain_ends_it(start, folder, echo):
    folder.write("all.yaml", *paifang.group("ws"), paifang.binding("open", "ws", HOST, webSocket=True), api("echo", "/ws/*", echo.port))
    gateway = start(folder, extra=("--lame-duck", "1s", "--drain-timeout", "30s"))

    async def talk():
        async with dial(gateway, "/ws/drained", ping_interval=None) as socket_:
            await socket_.send("a")
            assert await socket_.recv() == "a"
            gateway.process.terminate()
            began = time.monotonic()
            with pytest.raises(ConnectionClosed) as closed:
                await socket_.recv()
            assert closed.value.rcvd.code == GOING_AWAY
            return time.monotonic() - began

    before = len(echo.farewells)
    assert asyncio.run(talk()) < 15
    assert gateway.process.wait(20) == 0
    assert upstreams.until(lambda: echo.farewells[before:] == [GOING_AWAY])


def test_a_client_that_vanishes_frees_everything(gateway):
    open_before = metric(gateway, "paifang_upgrades_open")
    connections = []
    for _ in range(10):
        connection = wire.Connection(gateway.address("http"))
        connection.send(f"GET /ws/gone HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
        while b"\r\n\r\n" not in connection.buffer:
            assert connection._more()
        connections.append(connection)
    assert upstreams.until(lambda: metric(gateway, "paifang_upgrades_open") == open_before + 10)
    for connection in connections:
        connection.reset()
    assert upstreams.until(lambda: metric(gateway, "paifang_upgrades_open") == open_before)
