"""Requests that a gateway must refuse, byte for byte, and what its backend saw of them: nothing.

The rows follow measurements of nginx, HAProxy, Envoy, Pingora and plain hyper; for each row our rule is at least as strict
as the strictest of them. The `rule` column is RFC 9112 / 9110 unless it says `policy`."""

import re

import pytest

import paifang
import upstreams
import wire

HOST = "clean.localtest"
REFUSED = (400,)


def lines(*text, host=True, method="GET", target="/a", version="HTTP/1.1"):
    head = [f"{method} {target} {version}"] + ([f"Host: {HOST}"] if host else []) + list(text)
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")


def post(*text, body=b"", **options):
    return lines(*text, method="POST", **options) + body


CHUNK = b"5\r\nhello\r\n0\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"

# name, bytes, statuses that are right, rule
PAYLOADS = [
    # === Framing: length and transfer coding ===
    ("length-and-chunked", post("Content-Length: 5", CHUNKED, body=CHUNK), REFUSED, "9112 6.1"),
    ("chunked-and-length", post(CHUNKED, "Content-Length: 5", body=CHUNK), REFUSED, "9112 6.1"),
    ("coding-comma-chunked", post("Transfer-Encoding: ,chunked", body=CHUNK), REFUSED, "policy"),
    ("two-codings", post(CHUNKED, CHUNKED, body=CHUNK), REFUSED, "policy"),
    ("two-codings-identity", post(CHUNKED, "Transfer-Encoding: identity", body=CHUNK), REFUSED, "9112 6.1"),
    ("coding-in-1.0", post(CHUNKED, body=CHUNK, version="HTTP/1.0"), REFUSED, "9112 6.1"),
    ("coding-space-before-colon", post("Transfer-Encoding : chunked", body=CHUNK), REFUSED, "9112 5.1"),
    ("coding-chunked-identity", post("Transfer-Encoding: chunked, identity", body=CHUNK), REFUSED, "9112 6.3"),
    ("coding-chunked-chunked", post("Transfer-Encoding: chunked, chunked", body=CHUNK), REFUSED, "9112 6.1"),
    ("coding-unknown", post("Transfer-Encoding: xchunked", body=CHUNK), (400, 501), "9112 6.1"),
    ("coding-unknown-and-length", post("Transfer-Encoding: xchunked", "Content-Length: 5", body=b"hello"), (400, 501), "9112 6.1"),
    ("coding-vertical-tab", post("Transfer-Encoding: \x0bchunked", body=CHUNK), REFUSED, "9110 5.5"),
    ("length-plus", post("Content-Length: +5", body=b"hello"), REFUSED, "9110 8.6"),
    ("length-hex", post("Content-Length: 0x5", body=b"hello"), REFUSED, "9110 8.6"),
    ("length-empty", post("Content-Length: ", body=b"hello"), REFUSED, "9110 8.6"),
    ("length-negative", post("Content-Length: -1", body=b"hello"), REFUSED, "9110 8.6"),
    ("length-overflow", post("Content-Length: 99999999999999999999", body=b"hello"), REFUSED, "9110 8.6"),
    ("length-conflicting", post("Content-Length: 5", "Content-Length: 6", body=b"hello!"), REFUSED, "9112 6.3"),
    ("length-twice", post("Content-Length: 5", "Content-Length: 5", body=b"hello"), REFUSED, "policy"),
    ("length-list", post("Content-Length: 5, 5", body=b"hello"), REFUSED, "policy"),
    ("length-space-before-colon", post("Content-Length : 5", body=b"hello"), REFUSED, "9112 5.1"),
    # === Lines and fields ===
    ("bare-lf-lines", f"GET /a HTTP/1.1\nHost: {HOST}\nX-A: b\n\n".encode(), REFUSED, "policy"),
    ("bare-lf-one-line", f"GET /a HTTP/1.1\r\nHost: {HOST}\r\nX-A: b\nX-B: c\r\n\r\n".encode(), REFUSED, "policy"),
    ("bare-cr-in-value", lines("X-A: a\rX-B: b"), REFUSED, "9112 2.2"),
    ("nul-in-value", lines("X-A: a\x00b"), REFUSED, "9110 5.5"),
    ("folded-value", lines("X-A: a\r\n b"), REFUSED, "9112 5.2"),
    ("line-without-colon", lines("X-A"), REFUSED, "9112 5"),
    ("empty-name", lines(": value"), REFUSED, "9110 5.1"),
    ("space-in-name", lines("X A: b"), REFUSED, "9110 5.1"),
    ("space-before-first-field", f"GET /a HTTP/1.1\r\n Host: {HOST}\r\n\r\n".encode(), REFUSED, "9112 2.2"),
    # === Request line ===
    ("version-1.2", lines(version="HTTP/1.2"), (400, 505), "policy"),
    ("version-lower-case", lines(version="http/1.1"), (400, 505), "9112 2.3"),
    ("two-spaces", lines(target=" /a"), REFUSED, "9112 3"),
    ("tab-in-request-line", f"GET\t/a HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(), REFUSED, "9112 3"),
    ("trace", lines(method="TRACE"), (400, 405, 501), "policy"),
    ("connect", f"CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(), (400, 405, 501), "policy"),
    # === Host and target ===
    ("host-missing", lines(host=False), REFUSED, "9112 3.2"),
    ("host-twice", lines(f"Host: {HOST}"), REFUSED, "9112 3.2"),
    ("host-userinfo", lines(f"Host: a@{HOST}", host=False), REFUSED, "9112 3.2"),
    ("host-with-path", lines(f"Host: {HOST}/c", host=False), REFUSED, "9112 3.2"),
    ("host-a@b/c", lines("Host: a@b/c", host=False), REFUSED, "9112 3.2"),
    ("host-empty", lines("Host:", host=False), (400, 404), "9112 3.2"),
    ("target-against-host", lines(target="http://other.localtest/a"), REFUSED, "policy"),
    ("target-with-userinfo", lines(target=f"http://a@{HOST}/a"), REFUSED, "9110 4.2.4"),
    ("dot-segments-above-root", lines(target="/x/../../admin"), REFUSED, "policy"),
    ("dot-segments-encoded", lines(target="/x/%2e%2e/admin"), REFUSED, "policy"),
    ("dot-segments-half-encoded", lines(target="/x/.%2E/admin"), REFUSED, "policy"),
    ("backslash", lines(target="/x\\..\\admin"), REFUSED, "policy"),
    ("fragment", lines(target="/a#b"), REFUSED, "9112 3.2"),
    ("nul-in-path", lines(target="/a\x00b"), REFUSED, "3986"),
    ("nul-encoded", lines(target="/a%00b"), REFUSED, "policy"),
    ("raw-8-bit-path", lines(target="/\xe5"), REFUSED, "3986"),
    ("broken-percent", lines(target="/a%zz"), REFUSED, "3986 2.1"),
    # === Fields that decide who the caller is ===
    ("connection-names-forwarded-for", lines("X-Forwarded-For: 1.2.3.4", "Connection: close, X-Forwarded-For"), REFUSED, "policy"),
    ("connection-names-host", lines("Connection: close, Host"), REFUSED, "policy"),
    ("connection-names-signature", lines("X-Ca-Signature: x", "Connection: X-Ca-Signature"), REFUSED, "policy"),
    ("connection-names-length", post("Content-Length: 5", "Connection: Content-Length", body=b"hello"), REFUSED, "policy"),
]

# Broken only after the head: the head may have gone on by then, the message may not end well.
BROKEN_BODIES = [
    ("chunk-size-hex-prefix", b"0x5\r\nhello\r\n0\r\n\r\n"),
    ("chunk-size-plus", b"+5\r\nhello\r\n0\r\n\r\n"),
    ("chunk-size-underscore", b"5_0\r\nhello\r\n0\r\n\r\n"),
    ("chunk-size-leading-space", b" 5\r\nhello\r\n0\r\n\r\n"),
    ("chunk-size-overflow", b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    ("chunk-size-missing", b"\r\nhello\r\n0\r\n\r\n"),
    ("chunk-data-too-long", b"5\r\nhelloXX\r\n0\r\n\r\n"),
    ("chunk-line-bare-lf", b"5\nhello\n0\n\n"),
]


@pytest.fixture(scope="module")
def gateway(module_start, recorder):
    return module_start([
        *paifang.group("clean", HOST),
        paifang.api("all", "clean", "/*", {**paifang.http_backend(recorder.port), "path": "/*", "timeout": "5s"}, method="ANY"),
    ])


def send(gateway, data, closes=False):
    with wire.Connection(gateway.address("http"), timeout=10) as connection:
        try:
            connection.send(data)
        except ConnectionError:
            pass
        answer = connection.answer()
        return answer, closes and (answer is None or connection.ended())


def works(gateway, recorder):
    recorder.clear()
    answer = wire.get(gateway.address("http"), "/fine", HOST)
    assert (answer.status, answer.body) == (200, b"ok")
    assert b"GET /fine " in recorder.received()


@pytest.mark.parametrize("name, data, statuses, rule", PAYLOADS, ids=[row[0] for row in PAYLOADS])
def test_refused_and_not_forwarded(gateway, recorder, name, data, statuses, rule):
    recorder.clear()
    answer, _ = send(gateway, data)
    assert answer is not None, f"{rule}: closed without an answer"
    assert answer.status in statuses, f"{rule}: answered {answer.status} {answer.code} {answer.body[:200]}"
    assert recorder.received() == b"", f"{rule}: the backend received {recorder.received()[:400]!r}"
    works(gateway, recorder)


@pytest.mark.parametrize("name, body", BROKEN_BODIES, ids=[row[0] for row in BROKEN_BODIES])
def test_broken_chunks_never_reach_a_backend_as_a_message(gateway, recorder, name, body):
    recorder.clear()
    answer, closed = send(gateway, post(CHUNKED, body=body), closes=True)
    assert answer is not None and answer.status == 400, f"answered {answer and (answer.status, answer.code)}"
    assert closed, "the connection was kept"
    # Whatever went on was never ended: neither as chunks nor as a length that was filled.
    seen = recorder.received()
    assert not seen.endswith(b"0\r\n\r\n"), seen
    assert b"Content-Length: 5" not in seen, seen
    answer = wire.get(gateway.address("http"), "/fine", HOST)
    assert (answer.status, answer.body) == (200, b"ok")
    shared = [seen for seen in recorder.bytes.values() if b"POST /a " in seen and b"GET /fine " in seen]
    assert not shared, "the next request shared a connection with the broken one"


def test_after_a_refusal_the_connection_is_closed(gateway):
    """What follows a message whose end is in doubt may be part of it, so it is not read as a request."""
    second = lines(target="/second")
    for name in ("length-and-chunked", "two-codings", "length-twice", "length-conflicting", "bare-lf-lines"):
        data = next(row[1] for row in PAYLOADS if row[0] == name)
        with wire.Connection(gateway.address("http"), timeout=10) as connection:
            connection.send(data + second)
            assert connection.answer().status == 400, name
            assert connection.answer() is None, f"{name}: what followed was answered"


# === Requests that are fine, and what is taken out of them ===


def forwarded(gateway, recorder, data, status=200):
    recorder.clear()
    answer, _ = send(gateway, data)
    assert answer.status == status, (answer.status, answer.code, answer.header("x-ca-error-message"))
    return recorder.received()


def fields(seen):
    head = seen.split(b"\r\n\r\n")[0].decode("latin-1")
    return {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head.split("\r\n")[1:])}


def test_trailers_are_dropped(gateway, recorder):
    body = b"5\r\nhello\r\n0\r\nContent-Length: 50\r\nX-Ca-Key: 1\r\n\r\n"
    seen = forwarded(gateway, recorder, post(CHUNKED, "Connection: close", body=body))
    assert b"hello" in seen
    assert b"50" not in seen.split(b"hello")[1] and b"x-ca-key" not in seen.lower()


def test_names_with_underscores_are_dropped(gateway, recorder):
    seen = forwarded(gateway, recorder, lines("X_Forwarded_For: 1.2.3.4", "X-Kept: yes", "Connection: close"))
    assert b"x_forwarded_for" not in seen.lower()
    assert fields(seen)["x-kept"] == "yes"


def test_a_callers_forwarded_for_is_replaced(gateway, recorder):
    seen = forwarded(gateway, recorder, lines("X-Forwarded-For: 1.2.3.4", "Connection: close"))
    assert fields(seen)["x-forwarded-for"] == "127.0.0.1"


def test_fields_for_one_hop_stop_here(gateway, recorder):
    seen = fields(forwarded(gateway, recorder, lines("Connection: close, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "Proxy-Connection: close",
                                                     "TE: trailers", "Proxy-Authorization: x", "X-Kept: yes")))
    assert seen["x-kept"] == "yes"
    assert not {"x-hop", "keep-alive", "proxy-connection", "proxy-authorization"} & set(seen)
    # That trailers are taken is said anew, for the next hop (RFC 9110 §10.1.4).
    assert (seen["connection"].lower(), seen["te"]) == ("te", "trailers")


def test_an_absolute_target_of_the_same_host_is_served(gateway, recorder):
    seen = forwarded(gateway, recorder, lines("Connection: close", target=f"http://{HOST}/a?b=1"))
    assert seen.startswith(b"GET /a?b=1 HTTP/1.1\r\n")


@pytest.mark.parametrize("target, path", [("/x/../admin", "/admin"), ("/a/./b", "/a/b"), ("/%61dmin", "/admin"), ("/a%2fb", "/a%2Fb")])
def test_a_path_is_forwarded_as_it_was_understood(gateway, recorder, target, path):
    seen = forwarded(gateway, recorder, lines("Connection: close", target=target))
    assert seen.startswith(f"GET {path} HTTP/1.1\r\n".encode())


def test_a_message_is_forwarded_as_one_message(gateway, recorder):
    """One length or one coding, never both, whatever the caller used."""
    for data in (post("Content-Length: 5", "Connection: close", body=b"hello"), post(CHUNKED, "Connection: close", body=CHUNK)):
        seen = forwarded(gateway, recorder, data)
        head = seen.split(b"\r\n\r\n")[0].lower()
        assert (b"content-length" in head) != (b"transfer-encoding" in head)
        assert len(re.findall(rb"content-length|transfer-encoding", head)) == 1


def test_pipelined_requests_are_answered_in_order(gateway, recorder):
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(b"".join(lines(target=f"/p{n}") for n in range(20)))
        assert [connection.answer().status for _ in range(20)] == [200] * 20
    seen = re.findall(rb"GET /p(\d+) ", recorder.received())
    assert sorted(map(int, seen)) == list(range(20))
