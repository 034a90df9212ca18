"""Backends that fail at one stage of the exchange, in HTTP/1.1, over TLS or in HTTP/2, until they are mended."""

import dataclasses
import socket
import ssl
import threading
import time
import typing

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

import upstreams
import wire

# What is read of a request before a backend breaks off in the middle of it, and how long such a request is.
SOME, LONG = 64 << 10, 1 << 20
# Beyond every limit that there is for an answer.
LARGE = 10 << 20
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nten bytes!"


@dataclasses.dataclass(frozen=True)
class Stage:
    """Where and how an exchange fails. `one` is the script in HTTP/1.1, `two` that in HTTP/2; without it the stage is not one of it."""

    one: typing.Callable | None = None
    two: typing.Callable | None = None
    # Before anything is read, TLS included.
    at_once: typing.Callable | None = None
    # In the place of the TLS handshake.
    handshake: typing.Callable | None = None
    # Connections are made: not at all, or in the end not, as those that wait to be accepted are too many.
    listens: bool = True
    full: bool = False
    # For types over TLS alone.
    over_tls: bool = False
    # Bytes of the caller's body; only types that have one are asked.
    body: int = 5
    timeout: str = "10s"


class Scripted(upstreams.Upstream):
    """Fails at `stage` until it is mended, then answers `well`, a pair of status and body."""

    def __init__(self, stage, well, *, tls=None, two=False):
        self.stage, self.well, self.tls, self.two = stage, well, tls, two
        self.mended = False
        # What was read of each request of which a byte was read.
        self.requests = []
        # Connections that are over.
        self.ended = 0
        super().__init__(self._exchange, listening=stage.listens and not stage.full)
        self.waiting = self._fill() if stage.full else []

    def _fill(self):
        """Connections that nobody accepts, as many as there is room for: the system then answers no others."""
        self.listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", self.port))
        return waiting

    def mend(self):
        self.mended = True
        for one in self.waiting:
            one.close()
        if not self.stage.listens or self.stage.full:
            self.listen()

    def _exchange(self, connection, _):
        try:
            self._fail_or_serve(connection)
        finally:
            self.ended += 1

    def _fail_or_serve(self, connection):
        if not self.mended and self.stage.at_once:
            return self.stage.at_once(connection)
        if self.tls:
            if not self.mended and self.stage.handshake:
                return self.stage.handshake(connection)
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except ssl.SSLError:
                return None
        talk = (Two if self.two else One)(connection, self)
        try:
            talk.serve(self.stage.two if self.two else self.stage.one)
        finally:
            connection.close()


class One:
    """One connection in HTTP/1.1."""

    def __init__(self, connection, backend):
        self.connection, self.backend, self.current = connection, backend, None
        self.count = 0

    def serve(self, script):
        while True:
            self.current = None
            if not self.head():
                return
            self.count += 1
            if self.backend.mended:
                self.rest()
                self.well()
            elif script(self) is not True:
                return

    def recv(self, size):
        data = self.connection.recv(size)
        if data:
            if self.current is None:
                self.current = bytearray()
                self.backend.requests.append(self.current)
            self.current += data
        return data

    def head(self):
        """Reads a head; whether there is one."""
        while b"\r\n\r\n" not in (self.current or b""):
            if not self.recv(65536):
                return False
        return True

    def well(self, more=b""):
        status, body = self.backend.well
        self.say(b"HTTP/1.1 %d Well\r\n%sContent-Length: %d\r\n\r\n" % (status, more, len(body)) + body)

    def rest(self):
        """Reads what is left of the request."""
        upstreams.read_request(self, bytes(self.current))

    def some(self, size):
        while len(self.current) < size:
            if not self.recv(4096):
                raise ConnectionError("the gateway closed in the middle of a request")

    def say(self, data):
        self.connection.sendall(data)

    def reset(self):
        # What was said is to arrive before the reset.
        time.sleep(0.05)
        upstreams.reset(self.connection)

    def finish(self):
        """Ends the connection, and over TLS says so."""
        if self.backend.tls:
            self.connection.unwrap()

    def wait(self):
        """Until the gateway gives up."""
        while self.connection.recv(65536):
            pass


class Two:
    """One connection in HTTP/2. `stream` is that of the request which is answered now."""

    def __init__(self, connection, backend):
        self.connection, self.backend, self.stream = connection, backend, None
        self.talk = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False))
        self.events, self.bodies, self.count = [], {}, 0

    def serve(self, script):
        self.talk.initiate_connection()
        self.flush()
        while self.until(h2.events.RequestReceived):
            self.count += 1
            if self.backend.mended:
                self.rest()
                self.well()
            elif script(self) is False:
                return

    def flush(self):
        self.connection.sendall(self.talk.data_to_send())

    def until(self, kind):
        """The next event of this kind, on the current stream if it is one of a stream; None when the gateway is gone."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if isinstance(event, h2.events.RequestReceived):
                    self.stream = event.stream_id
                    self.backend.requests.append(bytearray(repr(event.headers).encode()))
                elif isinstance(event, h2.events.DataReceived):
                    self.bodies[event.stream_id] = self.bodies.get(event.stream_id, 0) + len(event.data)
                    self.talk.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if isinstance(event, kind):
                    self.flush()
                    return event
            self.flush()
            data = self.connection.recv(65536)
            if not data:
                return None
            self.events += self.talk.receive_data(data)

    def rest(self):
        self.until(h2.events.StreamEnded)

    def some(self, size):
        while self.bodies.get(self.stream, 0) < size and self.until(h2.events.DataReceived):
            pass

    def head(self, headers=(), ended=False, status=200):
        self.talk.send_headers(self.stream, [(":status", str(status)), *headers], end_stream=ended)
        self.flush()

    def data(self, data, ended=False):
        """Sends within the windows; what the gateway says meanwhile is kept for later."""
        data = memoryview(data)
        while data:
            room = min(self.talk.local_flow_control_window(self.stream), self.talk.max_outbound_frame_size)
            if room <= 0:
                received = self.connection.recv(65536)
                if not received:
                    raise ConnectionError("the gateway is gone")
                self.events += self.talk.receive_data(received)
                continue
            self.talk.send_data(self.stream, data[:room], end_stream=ended and len(data) <= room)
            data = data[room:]
            self.flush()

    def well(self):
        self.answer(*self.backend.well)

    def answer(self, status, body):
        self.head([("content-length", str(len(body)))], ended=not body, status=status)
        self.data(body, ended=True)

    def end(self, code):
        """Ends the stream with an error."""
        self.talk.reset_stream(self.stream, code)
        self.flush()

    def leave(self, last):
        """GOAWAY: streams above `last` were not looked at."""
        self.talk.close_connection(last_stream_id=last)
        self.flush()

    def say(self, data):
        """Bytes past the protocol."""
        self.connection.sendall(data)

    reset, wait, finish = One.reset, One.wait, One.finish


def says(data, end="close", whole=True):
    """Reads the request and says `data`, which may be a function of the backend; then closes (over TLS without a word, or to its finish), resets, keeps
    silent or goes on."""
    def script(talk):
        if whole:
            talk.rest()
        talk.say(data(talk.backend) if callable(data) else data)
        return {"close": lambda: False, "reset": talk.reset, "silence": talk.wait, "finish": talk.finish, "keep": lambda: True}[end]()

    return script


def two(*steps):
    """A script in HTTP/2: the request is read, then each step is made."""
    def script(talk):
        talk.rest()
        results = [step(talk) for step in steps]
        return results[-1]

    return script


def closing(_):
    return False


def waiting(talk):
    talk.wait()
    return False


def resetting(talk):
    talk.reset()
    return False


def _reset_after_some(talk):
    talk.some(SOME)
    talk.reset()
    return False


def _reset_after_head(talk):
    talk.reset()
    return False


def _pause(_):
    """What was said is to be seen before what follows: over HTTP/2 the end of a connection is the end of all that is on it."""
    time.sleep(0.05)


def _begun(talk):
    talk.head([("content-length", "1000")])
    talk.data(b"ten bytes!")


def _large(backend):
    status, body = backend.well
    # A JSON object may end in spaces: it is larger, and not another answer.
    return b"HTTP/1.1 %d Large\r\nContent-Length: %d\r\n\r\n" % (status, LARGE) + body.ljust(LARGE)


def _long(backend):
    status, body = backend.well
    return b"HTTP/1.1 %d Long\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


def _old(backend):
    status, body = backend.well
    return b"HTTP/1.0 %d Old\r\n\r\n" % status + body


def _endless(field):
    return b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(field))


def _reset(connection):
    upstreams.reset(connection)


def _reset_in_handshake(connection):
    connection.recv(65536)
    upstreams.reset(connection)


def _silent_in_handshake(connection):
    while connection.recv(65536):
        pass


def _well_then(end):
    """The first request of a connection is answered well, and the connection ends."""
    def script(talk):
        talk.rest()
        talk.well()
        _pause(talk)
        return end(talk)

    return script


def _well_once(talk):
    """The first request of a connection is answered well, and the connection ends in the second."""
    talk.rest()
    if talk.count > 1:
        talk.reset()
        return False
    talk.well()
    return True


def _well_early(talk):
    """Answers before it has read the request, and reads no more of it (RFC 9110 §7.5, RFC 9113 §8.1)."""
    if isinstance(talk, Two):
        talk.well()
        talk.end(h2.errors.ErrorCodes.NO_ERROR)
        return True
    talk.well(b"Connection: close\r\n")
    time.sleep(0.3)
    return False


# Connections that are kept, and end before or in their second request.
KEPT = {
    "closed": Stage(_well_then(closing), _well_then(closing)),
    "reset": Stage(_well_then(resetting), _well_then(resetting)),
    "lost": Stage(_well_once, _well_once),
}

STAGES = {
    # Before a request.
    "refuses": Stage(listens=False),
    "accepts-nobody": Stage(full=True),
    "resets-when-accepted": Stage(at_once=_reset),
    "resets-in-handshake": Stage(handshake=_reset_in_handshake),
    "silent-in-handshake": Stage(handshake=_silent_in_handshake),
    "plain-in-handshake": Stage(handshake=lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    # In the request.
    "resets-after-head": Stage(_reset_after_head, _reset_after_head),
    "resets-in-request": Stage(_reset_after_some, _reset_after_some, body=LONG),
    "answers-early": Stage(_well_early, _well_early, body=LONG),
    # Instead of an answer.
    "closes-unanswered": Stage(says(b""), two(closing)),
    "resets-unanswered": Stage(says(b"", "reset"), two(resetting)),
    "silent": Stage(says(b"", "silence"), two(lambda talk: True), timeout="1s"),
    "garbage": Stage(says(b"\x16\x03\x01 this is no HTTP \x00\xff\r\n\r\n"), two(lambda talk: talk.say(b"\xff" * 64), closing)),
    "other-version": Stage(says(b"HTTP/3.7 200 OK\r\nContent-Length: 2\r\n\r\nok"), two(lambda talk: talk.say(BEGUN), closing)),
    "other-protocol": Stage(says(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: else\r\n\r\n", "silence")),
    # In its head.
    "head-closes": Stage(says(b"HTTP/1.1 200 OK\r\nContent-Le")),
    "head-resets": Stage(says(b"HTTP/1.1 200 OK\r\nContent-Le", "reset")),
    "head-stalls": Stage(says(b"HTTP/1.1 200 OK\r\n", "silence"), timeout="1s"),
    "head-too-large": Stage(says(b"HTTP/1.1 200 OK\r\n" + _endless(100) + b"Content-Length: 2\r\n\r\nok"),
                            two(lambda talk: talk.head([(f"x-{n}", "a" * 1000) for n in range(100)], ended=True))),
    "lengths-differ": Stage(says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!")),
    "length-and-chunks": Stage(says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")),
    # In its body.
    "body-closes": Stage(says(BEGUN), two(_begun, _pause, closing)),
    "body-resets": Stage(says(BEGUN, "reset"), two(_begun, resetting)),
    "body-stalls": Stage(says(BEGUN, "silence"), two(_begun), timeout="1s"),
    "unsized-resets": Stage(says(b"HTTP/1.1 200 OK\r\n\r\nten bytes!", "reset")),
    "chunks-end": Stage(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")),
    "chunks-broken": Stage(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n")),
    # More than was wanted.
    "body-long": Stage(says(_long, "keep"), two(lambda talk: talk.head([("content-length", "2")]), lambda talk: talk.data(b"okpoison", ended=True))),
    "too-large": Stage(says(_large, "keep"), two(lambda talk: talk.answer(talk.backend.well[0], talk.backend.well[1].ljust(LARGE)))),
    # An older answer, which its connection's end ends.
    "version-1.0": Stage(says(_old, "finish")),
    "version-1.0-resets": Stage(says(_old, "reset")),
    "version-1.0-unfinished": Stage(says(_old), over_tls=True),
    # What only HTTP/2 can say.
    "stream-refused": Stage(two=two(lambda talk: talk.end(h2.errors.ErrorCodes.REFUSED_STREAM))),
    "stream-failed": Stage(two=two(lambda talk: talk.end(h2.errors.ErrorCodes.INTERNAL_ERROR))),
    "stream-failed-in-body": Stage(two=two(_begun, lambda talk: talk.end(h2.errors.ErrorCodes.INTERNAL_ERROR))),
    "leaves-before": Stage(two=two(lambda talk: talk.leave(0), waiting)),
    "leaves-after": Stage(two=two(lambda talk: talk.leave(talk.stream), closing)),
    "ends-early": Stage(two=two(_begun, lambda talk: talk.data(b"end", ended=True))),
}


class Caller(wire.Connection):
    """A connection that keeps the head of an answer whose body was cut."""

    found = None

    def _body(self, found, method):
        self.found = found
        return super()._body(found, method)

    def call(self, method, target, host, body=b""):
        """One call: (answer, whether it was cut, seconds). No answer is None."""
        started, self.found = time.monotonic(), None
        length, body = ("", b"") if method == "GET" else (f"Content-Length: {len(body)}\r\n", body)

        def sending():
            try:
                self.send(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n".encode() + body)
            except OSError:
                pass  # The gateway need not read what nobody wants.

        # Beside the reading: an answer may come before all is sent.
        sender = threading.Thread(target=sending)
        sender.start()
        try:
            answer, cut = self.answer(method), False
        except (ConnectionError, ValueError):
            answer, cut = self.found, True
        seconds = time.monotonic() - started
        sender.join(20)
        return answer, cut, seconds
