"""TLS towards backends: what is verified, what each refusal is called, and HTTP/2 where it is asked for."""

import datetime
import socket
import ssl
import threading

import h2.config
import h2.connection
import h2.events
import pytest

import paifang
import upstreams
import wire
from certificates import Authority

HOST = "tls-backends.localtest"
NAME = "backend.internal"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def server(context, serve=None):
    """A backend over TLS. A handshake that fails ends the connection."""
    def plain(connection):
        rest = b""
        while found := upstreams.read_request(connection, rest):
            rest = found[2]
            connection.sendall(OK)

    def run(connection, _):
        try:
            secure = context.wrap_socket(connection, server_side=True)
        except ssl.SSLError:
            return
        (serve or plain)(secure)

    return upstreams.Upstream(run)


def context(certificates, pair, label, *, client_ca=None, highest=None, alpn=None):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*certificates.files(label, pair))
    if client_ca:
        made.load_verify_locations(cadata=client_ca)
        made.verify_mode = ssl.CERT_REQUIRED
    if highest:
        made.maximum_version = highest
    if alpn:
        made.set_alpn_protocols(alpn)
    return made


def http2(connection):
    """Answers `h2` to each request."""
    talk = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    talk.initiate_connection()
    connection.sendall(talk.data_to_send())
    while data := connection.recv(65536):
        for event in talk.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                headers = dict(event.headers)
                talk.send_headers(event.stream_id, [(":status", "200"), ("x-authority", headers[":authority"]), ("x-scheme", headers[":scheme"])])
                talk.send_data(event.stream_id, b"h2", end_stream=True)
        connection.sendall(talk.data_to_send())


@pytest.fixture(scope="module")
def backends(certificates, tmp_path_factory):
    other = Authority(tmp_path_factory.mktemp("other"), "Other CA")
    good = certificates.issue("backend", NAME)
    expired = certificates.issue("backend", NAME, ends=-datetime.timedelta(days=1))
    running = {
        "good": server(context(certificates, good, "good")),
        "expired": server(context(certificates, expired, "expired")),
        "other-name": server(context(certificates, certificates.issue("backend", "else.internal"), "other-name")),
        "unknown-ca": server(context(certificates, other.issue("backend", NAME), "unknown-ca")),
        "wants-client": server(context(certificates, good, "c", client_ca=certificates.pem)),
        "wants-client-tls12": server(context(certificates, good, "d", client_ca=certificates.pem, highest=ssl.TLSVersion.TLSv1_2)),
        "h2": server(context(certificates, good, "e", alpn=["h2", "http/1.1"]), http2),
        "h1-only": server(context(certificates, good, "f", alpn=["http/1.1"])),
        "no-alpn": server(context(certificates, good, "g")),
        "no-tls": upstreams.Upstream(lambda connection, _: connection.sendall(OK)),
    }
    yield running
    for one in running.values():
        one.close()


@pytest.fixture(scope="module")
def gateway(module_start, backends, certificates):
    chain, key = certificates.issue("gateway", client=True)
    stranger = certificates.issue("gateway", NAME)

    def api(name, backend, **http):
        tls = {"caSecretRef": {"name": "ca"}, "serverName": NAME, **http.pop("tls", {})}
        return paifang.api(name, "tls", f"/{name}", {"http": {"address": f"https://127.0.0.1:{backends[backend].port}", "tls": tls, **http}, "timeout": "10s"},
                           method="ANY")

    return module_start([
        *paifang.group("tls", HOST),
        paifang.secret("ca", **{"ca.crt": certificates.pem}),
        paifang.secret("client", "kubernetes.io/tls", **{"tls.crt": chain, "tls.key": key}),
        paifang.secret("stranger", "kubernetes.io/tls", **{"tls.crt": stranger[0], "tls.key": stranger[1]}),
        *(api(name, name) for name in ("good", "expired", "other-name", "unknown-ca", "wants-client", "wants-client-tls12", "no-tls")),
        api("with-client", "wants-client", tls={"clientCertificateRef": {"name": "client"}}),
        *(api(f"{name}-as-2", name, httpVersion="HTTP2") for name in ("h2", "h1-only", "no-alpn")),
        api("h2-as-1", "good"),
        paifang.api("system-roots", "tls", "/system-roots", {"http": {"address": f"https://127.0.0.1:{backends['good'].port}"}}),
    ])


def get(gateway, path):
    return wire.get(gateway.address("http"), path, HOST)


@pytest.mark.parametrize("path", ["/good", "/with-client"])
def test_what_is_trusted_answers(gateway, path):
    for _ in range(2):
        answer = get(gateway, path)
        assert (answer.status, answer.body) == (200, b"ok"), answer


@pytest.mark.parametrize("path, reason", [
    ("/expired", "certificate is expired"),
    ("/other-name", "certificate is for another name"),
    ("/unknown-ca", "certificate is of an unknown issuer"),
    ("/system-roots", "certificate is"),
    ("/wants-client", "a client certificate is required"),
    ("/wants-client-tls12", "handshake failed"),
    ("/no-tls", "handshake failed"),
])
def test_each_refusal_has_its_reason(gateway, path, reason):
    answer = get(gateway, path)
    assert (answer.status, answer.code) == (504, "D504CS"), answer
    assert reason in answer.header("x-ca-error-message")
    assert "internal" not in answer.header("x-ca-error-message"), "names are for the log"


def test_http2_where_it_is_asked_for_and_taken(gateway, backends):
    before = backends["h2"].connections
    for _ in range(5):
        answer = get(gateway, "/h2-as-2")
        assert (answer.status, answer.body) == (200, b"h2"), answer
        assert answer.header("x-authority") == f"127.0.0.1:{backends['h2'].port}" and answer.header("x-scheme") == "https"
    threads = [threading.Thread(target=get, args=(gateway, "/h2-as-2")) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    workers = len(__import__("os").sched_getaffinity(0))
    assert backends["h2"].connections - before <= workers, "one for each worker"


@pytest.mark.parametrize("path", ["/h1-only-as-2", "/no-alpn-as-2"])
def test_http1_where_http2_is_not_taken(gateway, path):
    for _ in range(5):
        answer = get(gateway, path)
        assert (answer.status, answer.body) == (200, b"ok"), answer
