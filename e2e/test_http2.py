"""HTTP/2: the public conformance suite, and requests that only HTTP/2 can express wrongly."""

import re
import subprocess
import xml.etree.ElementTree

import h2.config
import h2.connection
import h2.events
import pytest

import paifang
import wire

HOST = "two.localtest"


@pytest.fixture(scope="module")
def gateway(module_start, certificates, recorder):
    # h2spec resolves the name it is given, so the group also owns the one name that resolves to loopback everywhere.
    pair = certificates.issue("two", HOST, "localhost")
    return module_start([
        *paifang.group("two"),
        paifang.secret("two-tls", "kubernetes.io/tls", **{"tls.crt": pair[0], "tls.key": pair[1]}),
        paifang.binding("two", "two", HOST, tls={"secretRef": {"name": "two-tls"}}),
        paifang.binding("suite", "two", "localhost", tls={"secretRef": {"name": "two-tls"}}),
        paifang.api("all", "two", "/*", {**paifang.http_backend(recorder.port), "path": "/*"}, method="ANY"),
    ])


def test_h2spec(gateway, tmp_path, certificates):
    report = tmp_path / "h2spec.xml"
    done = subprocess.run([paifang.tool("h2spec"), "-h", "localhost", "-p", str(gateway.port("https")), "-t", "-k", "-o", "3", "-j", str(report)],
                          capture_output=True, text=True, timeout=170)
    summary = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", done.stdout)
    assert summary, done.stdout[-3000:] + done.stderr[-1000:]
    tests, passed, skipped, failed = map(int, summary.groups())
    failures = [f"{case.get('package')} {case.get('classname')}" for case in xml.etree.ElementTree.parse(report).iter("testcase")
                if case.find("failure") is not None or case.find("error") is not None]
    assert tests >= 140
    assert failed == 0, "\n".join(failures) + "\n" + done.stdout[-3000:]


def stream(gateway, certificates, headers, body=b"", settle=True):
    """One HTTP/2 request whose fields are sent unchecked: ('status', …), ('reset', code) or ('goaway', code)."""
    context = wire.trusting(certificates.path, alpn=["h2"])
    with wire.Connection(gateway.address("https"), tls=context, server_name=HOST, timeout=10) as connection:
        config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False)
        peer = h2.connection.H2Connection(config=config)
        peer.initiate_connection()
        peer.send_headers(1, headers, end_stream=not body)
        if body:
            peer.send_data(1, body, end_stream=True)
        connection.send(peer.data_to_send())
        while data := connection.socket.recv(65536):
            for event in peer.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    found = {n.decode() if isinstance(n, bytes) else n: v.decode() if isinstance(v, bytes) else v for n, v in event.headers}
                    return "status", int(found[":status"])
                if isinstance(event, h2.events.StreamReset):
                    return "reset", int(event.error_code)
                if isinstance(event, h2.events.ConnectionTerminated):
                    return "goaway", int(event.error_code)
            connection.send(peer.data_to_send())
        return "closed", 0


BASE = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/a")]


def base(**changed):
    return [(n, changed.get(n[1:], v)) for n, v in BASE if changed.get(n[1:], v) is not None]


# What becomes something else when written as HTTP/1.1 must not be written at all.
FORBIDDEN = {
    "te-chunked": [*base(method="POST"), ("transfer-encoding", "chunked")],
    "length-too-long": [*base(method="POST"), ("content-length", "50")],
    "length-twice": [*base(method="POST"), ("content-length", "5"), ("content-length", "5")],
    "length-conflicting": [*base(method="POST"), ("content-length", "5"), ("content-length", "6")],
    "line-feed-in-value": [*BASE, ("x-a", "b\r\nx-b: c")],
    "line-feed-in-path": base(path="/a HTTP/1.1\r\nX-B: c"),
    "space-in-path": base(path="/a b"),
    "colon-in-name": [*BASE, ("x-a: b\r\nx", "c")],
    "upper-case-name": [*BASE, ("X-Upper", "b")],
    "connection": [*BASE, ("connection", "close")],
    "authority-missing": base(authority=None),
    "authority-against-host": [*BASE, ("host", "other.localtest")],
    "authority-userinfo": base(authority=f"a@{HOST}"),
    "path-empty": base(path=""),
    "path-dots-above-root": base(path="/x/../../admin"),
    "path-dots-encoded": base(path="/x/%2e%2e/admin"),
    "path-backslash": base(path="/x\\..\\admin"),
    "trace": base(method="TRACE"),
    "pseudo-field-late": [*BASE[:3], ("x-a", "b"), BASE[3]],
    "pseudo-field-unknown": [*BASE, (":protocol2", "x")],
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_refused_and_not_forwarded(gateway, certificates, recorder, name):
    recorder.clear()
    headers = FORBIDDEN[name]
    body = b"hello" if dict(headers).get(":method") == "POST" else b""
    kind, code = stream(gateway, certificates, headers, body)
    assert kind != "status" or 400 <= code < 500, (kind, code)
    assert b"hello" not in recorder.received().split(b"\r\n\r\n")[-1] if name.startswith("length-too") else recorder.received() == b"", recorder.received()
    assert stream(gateway, certificates, BASE) == ("status", 200)


def test_a_fragment_goes_no_further(gateway, certificates, recorder):
    """The HTTP library cuts it off before anyone can see it: what is matched and what is forwarded are the same path."""
    recorder.clear()
    kind, code = stream(gateway, certificates, base(path="/a#b"))
    assert kind != "status" or code in (200, 400)
    assert b"#" not in recorder.received()


def test_a_good_request_is_forwarded(gateway, certificates, recorder):
    recorder.clear()
    assert stream(gateway, certificates, [*base(method="POST", path="/a?b=1"), ("content-length", "5")], b"hello") == ("status", 200)
    seen = recorder.received()
    assert seen.startswith(b"POST /a?b=1 HTTP/1.1\r\n") and seen.endswith(b"\r\n\r\nhello")


def test_many_streams_at_once(gateway, certificates):
    done = subprocess.run([paifang.tool("h2load"), "-n", "5000", "-c", "8", "-m", "32", "-t", "1", f"--connect-to=127.0.0.1:{gateway.port('https')}",
                           f"https://{HOST}/a"], capture_output=True, text=True, timeout=120)
    assert "5000 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout, done.stdout
    assert "status codes: 5000 2xx" in done.stdout, done.stdout
