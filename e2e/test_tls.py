"""Names and certificates: which one answers, who may come in, and what a change does to connections that are open."""

import ssl
import time

import httpx
import pytest

import paifang
import wire
from certificates import Authority

GROUP = "tls"


def tls(name, **more):
    return {"secretRef": {"name": name}, **more}


def tls_secret(name, pair):
    return paifang.secret(name, "kubernetes.io/tls", **{"tls.crt": pair[0], "tls.key": pair[1]})


@pytest.fixture(scope="module")
def partners(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("partners"), "Partners CA")


@pytest.fixture(scope="module")
def gateway(module_start, certificates, partners):
    echo = paifang.free_port()
    return module_start([
        *paifang.group(GROUP),
        tls_secret("exact", certificates.issue("exact", "shop.localtest")),
        tls_secret("wild", certificates.issue("wild", "*.shop.localtest")),
        tls_secret("other", certificates.issue("other", "other.localtest")),
        paifang.secret("partners-ca", **{"ca.crt": partners.pem}),
        paifang.binding("exact", GROUP, "shop.localtest", tls=tls("exact", redirectHttp=True)),
        paifang.binding("wild", GROUP, "*.shop.localtest", tls=tls("wild")),
        paifang.binding("mutual", GROUP, "partners.shop.localtest",
                        tls=tls("wild", clientCaSecretRef={"name": "partners-ca"}, passClientSubject=True)),
        paifang.binding("other", GROUP, "other.localtest", tls=tls("other")),
        paifang.binding("plain", GROUP, "plain.localtest"),
        paifang.api("hello", GROUP, "/hello", paifang.mock("hello")),
        paifang.api("https-only", GROUP, "/secure", paifang.mock("secure"), protocols=("HTTPS",)),
        paifang.api("http-only", GROUP, "/plain", paifang.mock("plain"), protocols=("HTTP",)),
        paifang.api("echo", GROUP, "/echo", paifang.http_backend(echo)),
    ], echo_port=echo)


def common_name(connection):
    subject = dict(pair for part in connection.socket.getpeercert()["subject"] for pair in part)
    return subject["commonName"]


@pytest.mark.parametrize("name, certificate", [
    ("shop.localtest", "exact"), ("north.shop.localtest", "wild"), ("south.shop.localtest", "wild"), ("other.localtest", "other"),
])
def test_the_name_picks_the_certificate(gateway, certificates, name, certificate):
    with wire.Connection(gateway.address("https"), tls=wire.trusting(certificates.path), server_name=name) as connection:
        assert common_name(connection) == certificate
        connection.send(f"GET /hello HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        assert connection.answer().body == b"hello"


@pytest.mark.parametrize("name", ["nobody.localtest", "a.b.shop.localtest", "plain.localtest"])
def test_a_name_without_a_certificate_gets_no_other_names(gateway, certificates, name):
    """No handshake, or at least no certificate that the client would take for this name."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        wire.Connection(gateway.address("https"), tls=wire.trusting(certificates.path), server_name=name)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(gateway, certificates, version):
    context = wire.trusting(certificates.path)
    context.minimum_version = context.maximum_version = version
    answer = wire.get(gateway.address("https"), "/hello", "shop.localtest", tls=context, server_name="shop.localtest")
    assert answer.body == b"hello"


def test_a_name_in_the_request_must_be_one_the_connection_is_for(gateway, certificates):
    """A connection for one name is no way around another name's client certificates."""
    answer = wire.get(gateway.address("https"), "/hello", "partners.shop.localtest", tls=wire.trusting(certificates.path), server_name="shop.localtest")
    assert answer.status in (400, 403, 421), answer


def test_http2_and_http1_are_chosen_by_the_client(gateway, certificates):
    for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)):
        context = wire.trusting(certificates.path, alpn=offered) if offered else wire.trusting(certificates.path)
        with wire.Connection(gateway.address("https"), tls=context, server_name="shop.localtest") as connection:
            assert connection.socket.selected_alpn_protocol() == chosen


def http2(gateway, certificates, name, path, **options):
    host, port = gateway.address("https")
    context = wire.trusting(certificates.path, **options)
    with httpx.Client(http1=False, http2=True, verify=context, trust_env=False) as client:
        return client.get(f"https://{host}:{port}{path}", headers={"Host": name}, extensions={"sni_hostname": name})


def test_a_request_over_http2(gateway, certificates):
    answer = http2(gateway, certificates, "shop.localtest", "/hello")
    assert (answer.http_version, answer.status_code, answer.text) == ("HTTP/2", 200, "hello")
    assert answer.headers["x-ca-request-id"]


def test_plain_http_is_sent_on_where_the_binding_says_so(gateway):
    answer = wire.get(gateway.address("http"), "/hello?a=1", "shop.localtest")
    assert answer.status in (301, 302, 307, 308)
    assert answer.header("location").startswith("https://shop.localtest")
    assert answer.header("location").endswith("/hello?a=1")
    assert wire.get(gateway.address("http"), "/hello", "north.shop.localtest").body == b"hello"


def test_an_api_answers_only_over_its_protocols(gateway, certificates):
    answer = wire.get(gateway.address("http"), "/secure", "north.shop.localtest")
    assert (answer.status, answer.code) == (403, "I403PT")
    secure = dict(tls=wire.trusting(certificates.path), server_name="north.shop.localtest")
    assert wire.get(gateway.address("https"), "/secure", "north.shop.localtest", **secure).body == b"secure"
    answer = wire.get(gateway.address("https"), "/plain", "north.shop.localtest", **secure)
    assert (answer.status, answer.code) == (403, "I403PT")


# === Client certificates ===


def test_a_partner_comes_in_and_the_backend_learns_who(gateway, certificates, partners):
    files = partners.files("one", partners.issue("partner-one", client=True))
    answer = wire.get(gateway.address("https"), "/echo", "partners.shop.localtest", [("X-Client-S-Dn", "CN=forged")],
                      tls=wire.trusting(certificates.path, certificate=files[0], key=files[1]), server_name="partners.shop.localtest")
    assert answer.status == 200
    seen = paifang.echo_of(answer.body)["headers"]["x-client-s-dn"]
    assert len(seen) == 1 and "partner-one" in seen[0] and "forged" not in seen[0]


def refused(gateway, context):
    """A TLS 1.3 client learns of its refusal with the first read."""
    try:
        with wire.Connection(gateway.address("https"), tls=context, server_name="partners.shop.localtest") as connection:
            connection.send(b"GET /hello HTTP/1.1\r\nHost: partners.shop.localtest\r\n\r\n")
            answer = connection.answer()
            return answer is None or answer.status in (400, 403)
    except (ssl.SSLError, ConnectionError):
        return True


def test_nobody_comes_in_without_a_certificate(gateway, certificates):
    assert refused(gateway, wire.trusting(certificates.path))


def test_nobody_comes_in_with_a_strangers_certificate(gateway, certificates, tmp_path):
    stranger = Authority(tmp_path, "Partners CA")
    files = stranger.files("stranger", stranger.issue("partner-one", client=True))
    assert refused(gateway, wire.trusting(certificates.path, certificate=files[0], key=files[1]))


def test_a_callers_client_subject_header_is_not_believed(gateway, certificates):
    answer = wire.get(gateway.address("https"), "/echo", "shop.localtest", [("X-Client-S-Dn", "CN=forged")],
                      tls=wire.trusting(certificates.path), server_name="shop.localtest")
    assert "x-client-s-dn" not in paifang.echo_of(answer.body)["headers"]


# === Changes ===


def served_name(gateway, context):
    with wire.Connection(gateway.address("https"), tls=context, server_name="swap.localtest") as connection:
        return common_name(connection)


def wait_for(gateway, context, name, seconds=5):
    deadline = time.monotonic() + seconds
    while (found := served_name(gateway, context)) != name and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found == name


def test_a_new_certificate_is_served_and_open_connections_stay(start, folder, certificates):
    def write(common_name):
        folder.write("secret.yaml", tls_secret("swap", certificates.issue(common_name, "swap.localtest")))

    write("first")
    folder.write("all.yaml", *paifang.group(GROUP), paifang.binding("swap", GROUP, "swap.localtest", tls=tls("swap")),
                 paifang.api("hello", GROUP, "/hello", paifang.mock("hello")))
    gateway = start(folder)
    context = wire.trusting(certificates.path)
    with wire.Connection(gateway.address("https"), tls=context, server_name="swap.localtest") as kept:
        for round_, name in enumerate(["second", "third", "fourth"]):
            kept.send(b"GET /hello HTTP/1.1\r\nHost: swap.localtest\r\n\r\n")
            assert kept.answer().body == b"hello", round_
            write(name)
            wait_for(gateway, context, name)
        kept.send(b"GET /hello HTTP/1.1\r\nHost: swap.localtest\r\n\r\n")
        assert kept.answer().body == b"hello"
        assert common_name(kept) == "first"


def test_a_pair_that_does_not_match_leaves_the_last_good_one(start, folder, certificates):
    good, other = certificates.issue("good", "swap.localtest"), certificates.issue("bad", "swap.localtest")
    folder.write("secret.yaml", tls_secret("swap", good))
    folder.write("all.yaml", *paifang.group(GROUP), paifang.binding("swap", GROUP, "swap.localtest", tls=tls("swap")),
                 paifang.binding("plain", GROUP, "plain.localtest"), paifang.api("hello", GROUP, "/hello", paifang.mock("hello")),
                 paifang.api("marker", GROUP, "/marker", paifang.mock("1")))
    gateway = start(folder)
    context = wire.trusting(certificates.path)
    for pair in ((other[0], good[1]), ("no certificate", good[1]), (good[0], "no key"), ("", "")):
        folder.write("secret.yaml", tls_secret("swap", pair))
        time.sleep(0.5)
        assert served_name(gateway, context) == "good", pair[0][:20]
        assert wire.get(gateway.address("http"), "/hello", "plain.localtest").body == b"hello"
    folder.write("secret.yaml", tls_secret("swap", certificates.issue("better", "swap.localtest")))
    wait_for(gateway, context, "better")
    assert good[1].splitlines()[1] not in gateway.text(), "a key is in the log"
