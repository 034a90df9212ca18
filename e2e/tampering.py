"""A proxy that changes one signed element of a request on its way.

Which change is in the path: a request for `/call/<name>~<change>` is forwarded with that change made."""

import re

import upstreams
import wire


def _method(r):
    r.method = "PUT" if r.method != "PUT" else "POST"


def _path(r):
    path, _, query = r.target.partition("?")
    r.target = path + "x" + (f"?{query}" if query else "")


def _query_add(r):
    r.target += ("&" if "?" in r.target else "?") + "zz=1"


def _query_value(r):
    changed = re.sub(r"([?&]q=)[^&]*", r"\g<1>changed", r.target)
    assert changed != r.target, r.target
    r.target = changed


def _query_drop(r):
    changed = re.sub(r"([?&])q=[^&]*&?", r"\1", r.target).rstrip("?&")
    assert changed != r.target, r.target
    r.target = changed


def _form_value(r):
    assert b"f=1" in r.body, r.body
    r.body = r.body.replace(b"f=1", b"f=2")


def _form_add(r):
    r.body += b"&zz=1"


def _body(r):
    r.body = bytes([r.body[0] ^ 1]) + r.body[1:]


def _digest(r):
    """The body and its Content-MD5 changed together: only the signature can tell."""
    import base64
    import hashlib

    _body(r)
    r.set("content-md5", base64.b64encode(hashlib.md5(r.body).digest()).decode())


def _signature(r):
    value = r.get("x-ca-signature")
    r.set("x-ca-signature", ("A" if value[0] != "A" else "B") + value[1:])


def _list(r):
    """One name taken out of the list of signed headers."""
    r.set("x-ca-signature-headers", ",".join(r.get("x-ca-signature-headers").split(",")[1:]))


def _header(name, value):
    def change(r):
        assert r.get(name) is not None, f"the client sent no {name}"
        r.set(name, value(r.get(name)) if callable(value) else value)

    return change


# change -> (what it does, expected status, expected code)
CHANGES = {
    "method": (_method, 403, "A403IS"),
    "path": (_path, 403, "A403IS"),
    "query-add": (_query_add, 403, "A403IS"),
    "query-value": (_query_value, 403, "A403IS"),
    "query-drop": (_query_drop, 403, "A403IS"),
    "nonce": (_header("x-ca-nonce", "00000000-0000-4000-8000-000000000000"), 403, "A403IS"),
    "timestamp": (_header("x-ca-timestamp", lambda v: str(int(v) + 1)), 403, "A403IS"),
    "stage": (_header("x-ca-stage", "TEST"), 403, "A403IS"),
    "accept": (_header("accept", "text/plain"), 403, "A403IS"),
    "content-type": (_header("content-type", lambda v: v + ";x=1"), 403, "A403IS"),
    "key": (_header("x-ca-key", "203700099"), 403, "A403IS"),
    "signature": (_signature, 403, "A403IS"),
    "list": (_list, 403, "A403IS"),
    "form-value": (_form_value, 403, "A403IS"),
    "form-add": (_form_add, 403, "A403IS"),
    "body": (_body, 400, "I400I5"),
    "digest": (_digest, 403, "A403IS"),
}


class Request:
    def __init__(self, head, body):
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, self.version = lines[0].split(" ")
        self.headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]
        self.body = body

    def get(self, name):
        return next((v for n, v in self.headers if n.lower() == name), None)

    def set(self, name, value):
        self.headers = [(n, value if n.lower() == name else v) for n, v in self.headers]

    def bytes(self):
        kept = [(n, v) for n, v in self.headers if n.lower() not in ("content-length", "transfer-encoding", "connection", "expect")]
        if self.body or self.method in ("POST", "PUT"):
            kept.append(("Content-Length", str(len(self.body))))
        lines = [f"{self.method} {self.target} {self.version}", *(f"{n}: {v}" for n, v in kept), "Connection: close"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self.body


def proxy(gateway):
    """Starts the proxy in front of `gateway` (host, port)."""

    def serve(connection, _):
        found = upstreams.read_request(connection)
        if not found:
            return
        request = Request(found[0], found[1])
        name = request.target.partition("?")[0].rpartition("~")[2]
        try:
            CHANGES[name][0](request)
        except Exception as error:  # the client sees it, so the test prints it
            text = f"{name}: {error!r}".encode()
            connection.sendall(b"HTTP/1.1 599 Not Tampered\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
            return
        with wire.Connection(gateway) as out:
            answer = out.send(request.bytes()).answer(request.method)
            dropped = ("transfer-encoding", "content-length", "connection")
            lines = [f"HTTP/1.1 {answer.status} -", f"Content-Length: {len(answer.body)}", "Connection: close"]
            lines += [f"{n}: {v}" for n, v in answer.headers if n.lower() not in dropped]
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + answer.body)

    return upstreams.Upstream(serve)
