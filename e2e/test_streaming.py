"""Bodies that are passed on while they come: uploads, server-sent events, trailers, 100-continue, and what informational answers do.

Over HTTP/1.1 and HTTP/2 on both sides; no test measures a time, each waits for what must have happened before the next thing is sent."""

import socket
import ssl
import threading
import time

import h2.config
import h2.connection
import h2.events
import pytest

import paifang
import upstreams
import wire

HOST = "stream.localtest"


class Gate:
    """A backend on one connection, step by step from the test: what came, and what it says next."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(20)
        self.port = self.listener.getsockname()[1]
        self.connection, self.seen = None, b""

    def until(self, what):
        if self.connection is None:
            self.connection, _ = self.listener.accept()
            self.connection.settimeout(20)
        while what not in self.seen:
            data = self.connection.recv(65536)
            assert data, f"the gateway closed; so far {self.seen[-200:]!r}"
            self.seen += data
        return self

    def say(self, data):
        self.connection.sendall(data)
        return self

    def done(self):
        """The next request may come on the same connection or another."""
        self.seen = b""

    def close(self):
        for one in (self.connection, self.listener):
            if one:
                one.close()


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture
def gateway(start, folder, gate, certificates):
    chain, key = certificates.issue("front", HOST)
    folder.write("all.yaml", *paifang.group("stream"), paifang.binding("d", "stream", HOST, tls={"secretRef": {"name": "front"}}),
                 paifang.secret("front", "kubernetes.io/tls", **{"tls.crt": chain, "tls.key": key}),
                 *paifang.app("caller", code="c" * 32),
                 paifang.authorization("calls", "stream", ["caller"]),
                 paifang.api("a", "stream", "/a", {**paifang.http_backend(gate.port), "timeout": "2s"}, method="ANY"),
                 paifang.api("s", "stream", "/signed", {**paifang.http_backend(gate.port), "timeout": "20s"}, method="ANY",
                             auth={"type": "App", "appCode": "Header"}),
                 paifang.api("l", "stream", "/long", {**paifang.http_backend(gate.port), "timeout": "30s"}, method="ANY"))
    return start(folder, extra=("--stream-idle-timeout", "4s", "--idle-timeout", "1s", "--stall-timeout", "1s", "--allow-trailer", "x-checksum-*"))


class Http2:
    """A client of HTTP/2 over TLS that sends what it is told and keeps what it gets."""

    def __init__(self, gateway, certificates):
        context = wire.trusting(certificates.path, alpn=["h2"])
        self.socket = context.wrap_socket(socket.create_connection(gateway.address("https"), timeout=20), server_hostname=HOST)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.data, self.headers, self.trailers, self.ended, self.reset = b"", None, None, False, None
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())
        return self

    def request(self, path, *headers, method="GET", end=True):
        self.h2.send_headers(1, [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", path), *headers], end_stream=end)
        return self.flush()

    def until(self, condition):
        while not condition(self):
            data = self.socket.recv(65536)
            assert data, "the gateway closed"
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    self.headers = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.data += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.TrailersReceived):
                    self.trailers = dict(event.headers)
                elif isinstance(event, h2.events.StreamEnded):
                    self.ended = True
                elif isinstance(event, h2.events.StreamReset):
                    self.reset = event.error_code
            self.flush()
        return self

    def close(self):
        self.socket.close()


@pytest.fixture
def http2(gateway, certificates):
    client = Http2(gateway, certificates)
    yield client
    client.close()


@pytest.fixture
def http1(gateway):
    with wire.Connection(gateway.address("http")) as connection:
        yield connection


def until(connection, what):
    while what not in connection.buffer:
        assert connection._more(), connection.buffer
    return connection


def head(path, *lines, method="GET"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {HOST}", *lines, "", ""]).encode()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_an_upload_arrives_while_it_is_sent(http1, gate):
    http1.send(head("/long", "Transfer-Encoding: chunked", method="POST") + b"5\r\nfirst\r\n")
    gate.until(b"first")
    http1.send(b"6\r\nsecond\r\n")
    gate.until(b"second")
    http1.send(b"0\r\n\r\n")
    gate.until(b"0\r\n\r\n").say(OK)
    assert http1.answer().body == b"ok"


def test_an_upload_of_known_length_arrives_while_it_is_sent(http1, gate):
    http1.send(head("/long", "Content-Length: 11", method="PUT") + b"first")
    gate.until(b"first")
    http1.send(b"second")
    gate.until(b"firstsecond").say(OK)
    assert http1.answer().body == b"ok"


def test_an_upload_over_http2_arrives_while_it_is_sent(http2, gate):
    http2.request("/long", method="POST", end=False)
    http2.h2.send_data(1, b"first")
    http2.flush()
    gate.until(b"first")
    http2.h2.send_data(1, b"second", end_stream=True)
    http2.flush()
    gate.until(b"second").say(OK)
    assert http2.until(lambda c: c.ended).data == b"ok"


def test_events_arrive_one_by_one_and_outlive_timeouts(http1, gate):
    """Longer than the Api's 2 s, the client's idle time of 1 s and its stall of 1 s."""
    http1.send(head("/a", "Accept: text/event-stream"))
    gate.until(b"\r\n\r\n").say(EVENTS)
    until(http1, b"\r\n\r\n")
    for number in range(3):
        gate.say(b"9\r\ndata: %d\n\n\r\n" % number)
        until(http1, b"data: %d" % number)
        time.sleep(1.2)
    gate.say(b"0\r\n\r\n")
    until(http1, b"0\r\n\r\n")


def test_events_over_http2_arrive_one_by_one_and_outlive_timeouts(http2, gate):
    http2.request("/a", ("accept", "text/event-stream"))
    gate.until(b"\r\n\r\n").say(EVENTS)
    http2.until(lambda c: c.headers)
    for number in range(3):
        gate.say(b"9\r\ndata: %d\n\n\r\n" % number)
        http2.until(lambda c: b"data: %d" % number in c.data)
        time.sleep(1.2)
    gate.say(b"0\r\n\r\n")
    assert http2.until(lambda c: c.ended).reset is None


def test_silent_events_end_and_look_cut(http1, gate):
    http1.send(head("/a"))
    gate.until(b"\r\n\r\n").say(EVENTS + b"9\r\ndata: 0\n\n\r\n")
    until(http1, b"data: 0")
    assert http1.ended()
    assert not http1.buffer.endswith(b"0\r\n\r\n")


def test_an_ordinary_answer_is_cut_at_the_total_and_looks_cut(http1, gate):
    http1.send(head("/a"))
    gate.until(b"\r\n\r\n").say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndrip\r\n")
    until(http1, b"drip")
    began = time.monotonic()
    stop = threading.Event()

    def drip():
        try:
            while not stop.wait(0.2):
                gate.say(b"4\r\ndrip\r\n")
        except OSError:
            pass

    threading.Thread(target=drip, daemon=True).start()
    assert http1.ended()
    stop.set()
    assert time.monotonic() - began < 15
    assert not http1.buffer.endswith(b"0\r\n\r\n")


def test_an_answer_cut_over_http2_is_reset(http2, gate):
    http2.request("/long")
    gate.until(b"\r\n\r\n").say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    http2.until(lambda c: c.data == b"half")
    upstreams.reset(gate.connection)
    http2.until(lambda c: c.ended or c.reset is not None)
    assert http2.reset is not None and not http2.ended


def test_a_client_that_leaves_ends_the_events_at_the_backend(http1, gate):
    http1.send(head("/a"))
    gate.until(b"\r\n\r\n").say(EVENTS)
    until(http1, b"\r\n\r\n").reset()
    with pytest.raises(OSError):
        for _ in range(200):
            gate.say(b"9\r\ndata: 0\n\n\r\n")
            time.sleep(0.05)


# --- 100-continue, and other informational answers


def test_100_continue_is_ours_and_comes_when_the_body_is_wanted(http1, gate):
    http1.send(head("/long", "Expect: 100-continue", "Content-Length: 4", method="POST"))
    until(http1, b"HTTP/1.1 100 Continue\r\n\r\n")
    gate.until(b"\r\n\r\n")
    assert b"expect" not in gate.seen.lower()
    http1.send(b"body")
    gate.until(b"body").say(OK)
    assert http1.answer().body == b"ok"


def test_who_is_not_admitted_is_not_asked_for_a_body(http1, gate):
    http1.send(head("/signed", "Expect: 100-continue", "Content-Length: 4", method="POST"))
    until(http1, b"\r\n\r\n")
    assert http1.buffer.startswith(b"HTTP/1.1 400 "), http1.buffer
    assert b"100 Continue" not in http1.buffer
    assert b"A400MA" in http1.buffer


def test_who_is_admitted_is(http1, gate):
    http1.send(head("/signed", "Expect: 100-continue", "Content-Length: 4", "Authorization: APPCODE " + "c" * 32, method="POST"))
    until(http1, b"HTTP/1.1 100 Continue\r\n\r\n").send(b"body")
    gate.until(b"body").say(OK)
    assert http1.answer().body == b"ok"


@pytest.mark.parametrize("before", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
                                    b"HTTP/1.1 102 Processing\r\n\r\n" * 3])
def test_informational_answers_of_a_backend_do_no_harm(http1, gate, before):
    for _ in range(2):
        http1.send(head("/long", "Content-Length: 4", method="POST") + b"body")
        gate.until(b"body").say(before + OK)
        answer = http1.answer()
        assert (answer.status, answer.body) == (200, b"ok")
        gate.done()


# --- trailers

TRAILED = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status, X-Checksum-Crc, X-Secret, Set-Cookie\r\n\r\n"
           b"2\r\nok\r\n0\r\nGrpc-Status: 0\r\nX-Checksum-Crc: 9\r\nX-Secret: s\r\nSet-Cookie: a=b\r\nX-Ca-Request-Id: forged\r\n\r\n")


def test_listed_trailers_of_an_answer_pass(http1, gate):
    http1.send(head("/long", "TE: trailers", "Connection: TE"))
    gate.until(b"\r\n\r\n")
    assert b"te: trailers" in gate.seen.lower()
    gate.say(TRAILED)
    until(http1, b"\r\n0\r\n")
    until(http1, b"\r\n\r\n")
    while not http1.buffer.endswith(b"\r\n\r\n") or b"\r\n0\r\n" not in http1.buffer:
        assert http1._more()
    said, behind = http1.buffer.split(b"\r\n0\r\n")
    assert b"trailer: grpc-status, x-checksum-crc\r\n" in said.lower()
    assert b"grpc-status: 0" in behind.lower() and b"x-checksum-crc: 9" in behind.lower()
    for name in (b"x-secret", b"set-cookie", b"x-ca-"):
        assert name not in behind.lower()


def test_who_takes_no_trailers_gets_none(http1, gate):
    http1.send(head("/long"))
    gate.until(b"\r\n\r\n")
    assert b"te:" not in gate.seen.lower()
    gate.say(TRAILED)
    assert http1.answer().body == b"ok"
    assert http1.buffer == b""


def test_listed_trailers_of_an_answer_pass_to_http2(http2, gate):
    http2.request("/long", ("te", "trailers"))
    gate.until(b"\r\n\r\n").say(TRAILED)
    http2.until(lambda c: c.ended)
    assert http2.data == b"ok"
    assert http2.trailers == {"grpc-status": "0", "x-checksum-crc": "9"}


def test_listed_trailers_of_a_request_pass(http1, gate):
    http1.send(head("/long", "Transfer-Encoding: chunked", "Trailer: X-Checksum-Crc, X-Secret, Authorization", method="POST")
               + b"4\r\nbody\r\n0\r\nX-Checksum-Crc: 9\r\nX-Secret: s\r\nAuthorization: forged\r\n\r\n")
    gate.until(b"0\r\n").until(b"x-checksum-crc: 9\r\n\r\n" if b"x-checksum-crc: 9" in gate.seen else b"9\r\n\r\n").say(OK)
    said, behind = gate.seen.lower().split(b"\r\n0\r\n")
    assert b"trailer: x-checksum-crc\r\n" in said
    assert b"x-checksum-crc: 9" in behind
    assert b"x-secret" not in gate.seen.lower().replace(b"trailer: ", b"") and b"authorization" not in gate.seen.lower()
    assert http1.answer().body == b"ok"


def test_listed_trailers_of_a_request_over_http2_pass(http2, gate):
    http2.request("/long", ("trailer", "x-checksum-crc"), method="POST", end=False)
    http2.h2.send_data(1, b"body")
    http2.h2.send_headers(1, [("x-checksum-crc", "9"), ("x-secret", "s")], end_stream=True)
    http2.flush()
    gate.until(b"9\r\n\r\n").say(OK)
    assert b"x-secret" not in gate.seen.lower()
    assert http2.until(lambda c: c.ended).data == b"ok"


# --- backpressure


def test_a_backend_that_does_not_read_stops_the_upload(gateway, gate):
    """8 MiB is the limit of a body: what the sockets hold is far less, so that the client cannot send it all."""
    with wire.Connection(gateway.address("http"), timeout=2) as connection:
        size = 8 << 20
        connection.send(head("/long", f"Content-Length: {size}", method="POST"))
        gate.connection, _ = gate.listener.accept()
        gate.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        before, sent = resident(gateway), 0
        with pytest.raises(TimeoutError):
            while sent < size:
                sent += connection.socket.send(b"u" * 65536)
        assert resident(gateway) - before < 6 << 20


def resident(gateway):
    """Bytes of its own, without pages of the program that were touched for the first time."""
    with open(f"/proc/{gateway.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024
