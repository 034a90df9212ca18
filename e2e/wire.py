"""Bytes in, bytes out: what a test of hostile or unusual requests needs, with nothing in between."""

import dataclasses
import socket
import ssl


@dataclasses.dataclass
class Answer:
    """One HTTP/1.x answer as it came."""

    status: int
    headers: list
    body: bytes
    closed: bool = False

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def header(self, name, default=None):
        return next(iter(self.all(name)), default)

    @property
    def code(self):
        return self.header("x-ca-error-code")


class Connection:
    """A connection that sends exactly the bytes it is given and reads one answer at a time."""

    def __init__(self, address, *, tls=None, server_name=None, timeout=20):
        self.socket = socket.create_connection(address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=server_name)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            self.socket.close()
        except OSError:
            pass

    def send(self, data):
        self.socket.sendall(data)
        return self

    def finish(self):
        """Half-close: nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self):
        """Ends with a TCP reset instead of a goodbye."""
        import struct

        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _more(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def answer(self, method="GET"):
        """The next answer, or None when the peer closed without one."""
        while b"\r\n\r\n" not in self.buffer:
            try:
                if not self._more():
                    return None
            except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return None
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        headers = [(n, v.strip()) for n, _, v in (line.partition(":") for line in lines[1:])]
        found = Answer(int(lines[0].split(" ")[1]), headers, b"")
        if 100 <= found.status < 200:
            return self.answer(method)
        found.body, found.closed = self._body(found, method)
        return found

    def _body(self, found, method):
        if method == "HEAD" or found.status in (204, 304):
            return b"", False
        if "chunked" in (found.header("transfer-encoding") or "").lower():
            return self._chunked(), False
        length = found.header("content-length")
        if length is None:
            while self._more():
                pass
            body, self.buffer = self.buffer, b""
            return body, True
        pieces, missing = [self.buffer], int(length) - len(self.buffer)
        while missing > 0:
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError(f"closed {missing} bytes before the end of {length}")
            pieces.append(data)
            missing -= len(data)
        whole = b"".join(pieces)
        body, self.buffer = whole[: int(length)], whole[int(length):]
        return body, False

    def _line(self):
        while b"\r\n" not in self.buffer:
            if not self._more():
                raise ConnectionError("closed in the middle of a chunked answer")
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def _chunked(self):
        body = b""
        while size := int(self._line().split(b";")[0], 16):
            while len(self.buffer) < size + 2:
                if not self._more():
                    raise ConnectionError("closed in the middle of a chunk")
            body, self.buffer = body + self.buffer[:size], self.buffer[size + 2:]
        while self._line():
            pass
        return body

    def ended(self):
        """Whether the peer closes now (within the timeout). Whatever it still says is dropped."""
        try:
            while self._more():
                pass
            return True
        except TimeoutError:
            return False
        except (ConnectionError, ssl.SSLError):
            return True


def request(address, method, target, host, headers=(), body=b"", *, tls=None, server_name=None, timeout=20):
    """One request on a connection of its own."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{n}: {v}" for n, v in headers]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    data = ("\r\n".join(lines) + "\r\n\r\n").encode() + body
    with Connection(address, tls=tls, server_name=server_name, timeout=timeout) as connection:
        return connection.send(data).answer(method)


def get(address, target, host, headers=(), **options):
    return request(address, "GET", target, host, headers, **options)


def trusting(ca, *, alpn=None, certificate=None, key=None):
    """A TLS client that trusts one CA file."""
    context = ssl.create_default_context(cafile=str(ca))
    if certificate:
        context.load_cert_chain(str(certificate), str(key))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
