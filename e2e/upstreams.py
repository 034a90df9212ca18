"""Backends that tests control: one that records every byte, and one that misbehaves as told."""

import socket
import struct
import threading
import time


class Upstream:
    """A TCP server on a port of its own. `serve(connection, number)` is called in a thread for each connection.

    One that is not `listening` keeps its port and refuses connections until it is told to `listen`."""

    def __init__(self, serve, listening=True):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._serve, self._open, self._count = serve, set(), 0
        self._lock = threading.Lock()
        if listening:
            self.listen()

    def listen(self):
        self.listener.listen(256)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(120)
            with self._lock:
                self._open.add(connection)
                self._count += 1
                number = self._count
            threading.Thread(target=self._run, args=(connection, number), daemon=True).start()

    def _run(self, connection, number):
        try:
            self._serve(connection, number)
        except OSError:
            pass
        finally:
            connection.close()
            with self._lock:
                self._open.discard(connection)

    @property
    def connections(self):
        return self._count

    def close(self):
        self.listener.close()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


def read_request(connection, buffer=b""):
    """One request: (head, body, rest), or None when the peer is gone. Understands lengths and chunks."""
    while b"\r\n\r\n" not in buffer:
        data = connection.recv(65536)
        if not data:
            return None
        buffer += data
    head, buffer = buffer.split(b"\r\n\r\n", 1)
    headers = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
        body = b""
        while True:
            while b"\r\n" not in buffer:
                buffer += _received(connection)
            line, buffer = buffer.split(b"\r\n", 1)
            size = int(line.split(b";")[0], 16)
            while len(buffer) < size + 2:
                buffer += _received(connection)
            body, buffer = body + buffer[:size], buffer[size + 2:]
            if not size:
                return head, body, buffer
    length = int(headers.get(b"content-length", b"0"))
    while len(buffer) < length:
        buffer += _received(connection)
    return head, buffer[:length], buffer[length:]


def _received(connection):
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the gateway closed in the middle of a request")
    return data


class Recorder(Upstream):
    """Answers 200 and keeps every byte that arrived, by connection."""

    def __init__(self):
        self.bytes = {}
        super().__init__(self._record)

    def _record(self, connection, number):
        self.bytes[number] = b""
        rest, original = b"", connection.recv

        class Tap:
            def recv(tap, size):
                data = original(size)
                self.bytes[number] += data
                return data

        while found := read_request(Tap(), rest):
            rest = found[2]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok")

    def received(self):
        """Every byte since the last `clear`."""
        return b"".join(self.bytes[n] for n in sorted(self.bytes))

    def clear(self):
        for number in self.bytes:
            self.bytes[number] = b""


class Seen(Upstream):
    """Keeps requests, read: method, target, headers by small names, body. Answers all of them in the same way."""

    def __init__(self, answer=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"):
        self.requests, self.answer = [], answer
        super().__init__(self._keep)

    def _keep(self, connection, _):
        rest = b""
        while found := read_request(connection, rest):
            head, body, rest = found
            lines = head.decode("latin-1").split("\r\n")
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
            self.requests.append((*lines[0].split(" ")[:2], headers, body))
            connection.sendall(self.answer)


def answering(answer):
    """An upstream that reads a request and then does what `answer(connection, head, body)` does, again and again."""

    def serve(connection, _):
        rest = b""
        while found := read_request(connection, rest):
            head, body, rest = found
            if answer(connection, head, body) is False:
                return

    return Upstream(serve)


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def say_and_reset(data):
    def answer(connection, head, body):
        connection.sendall(data)
        time.sleep(0.05)
        reset(connection)
        return False

    return answer


def silent(connection, head, body):
    time.sleep(30)
    return False


def until(condition, seconds=10, step=0.01):
    """Waits until it holds; the last answer either way."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(step)
    return found
