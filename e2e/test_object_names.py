"""Object stores whose bucket stands in front of the endpoint, by the name that DNS, `Host` and TLS see; and access keys that change under load."""

import re
import socket
import ssl
import threading

import pytest

import paifang
import upstreams
import wire
from test_objects import ACCESS_KEY, BUCKET, HOST, KEY, REGION, SECRET, Caller, access_key, apis, oss, quoted, signed_by_sdk

ENDPOINT = "oss.localtest"
STORE = f"{BUCKET}.{ENDPOINT}"
ADDRESS = bytes([127, 0, 0, 1])


class NameServer:
    """Says where the names of `known` are, and keeps what it was asked."""

    def __init__(self, *known):
        self.known, self.asked = known, []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self.socket.getsockname())
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                query, peer = self.socket.recvfrom(1500)
                self.socket.sendto(self._answer(query), peer)
            except OSError:
                return

    def _answer(self, query):
        """RFC 1035 §4: a header of 12 bytes, the question as it came, and its answers."""
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1:at + 1 + length].decode())
            at += 1 + length
        name, kind = ".".join(labels).lower(), int.from_bytes(query[at + 1:at + 3], "big")
        self.asked.append(name)
        is_known, has_answer = name in self.known, name in self.known and kind == 1
        head = query[:2] + bytes([0x81, 0x80 if is_known else 0x83, 0, 1, 0, has_answer, 0, 0, 0, 0])
        record = bytes([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]) + ADDRESS
        return head + query[12:at + 5] + (record if has_answer else b"")

    def close(self):
        self.socket.close()


class Store(upstreams.Upstream):
    """Keeps requests and answers them, over TLS if there is a context for it."""

    def __init__(self, tls=None):
        self.tls, self.requests, self.names = tls, [], []
        if tls:
            tls.sni_callback = lambda _, name, __: self.names.append(name)
        super().__init__(self._exchange)

    def _exchange(self, connection, _):
        if self.tls:
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except ssl.SSLError:
                return
        rest = b""
        while found := upstreams.read_request(connection, rest):
            head, body, rest = found
            lines = head.decode("latin-1").split("\r\n")
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
            self.requests.append((*lines[0].split(" ")[:2], headers, body))
            status, said = self.judge(*self.requests[-1])
            connection.sendall(b"HTTP/1.1 %d Judged\r\nContent-Length: %d\r\n\r\n" % (status, len(said)) + said)

    def judge(self, *_):
        return 200, b"ok"


@pytest.fixture
def names():
    names = NameServer(STORE)
    yield names
    names.close()


def secure(certificates, label, *of):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.files(label, certificates.issue("store", *of)))
    return context


def named(store, scheme="http", **spec):
    backend = oss(store.port, dialect="OSS", host=ENDPOINT, region="cn-hangzhou", **spec)
    backend["oss"]["endpoint"] = f"{scheme}://{ENDPOINT}:{store.port}"
    return backend


def configured(start, folder, names, *objects):
    folder.write("all.yaml", *paifang.group("objects", HOST), access_key(), *objects)
    return start(folder, extra=["--name-server", names.address])


@pytest.mark.parametrize("version", ["V4", "V1"])
def test_the_bucket_is_part_of_the_host(start, folder, names, version):
    store = Store()
    gateway = configured(start, folder, names, *apis(named(store, signatureVersion=version)))
    for method, body in (("PUT", b"hello"), ("GET", b""), ("HEAD", b""), ("DELETE", b"")):
        answer = Caller(gateway)(method, quoted(KEY), body=body)
        assert answer.status == 200, (answer.code, answer.header("x-ca-error-message"))
    assert len(store.requests) == 4
    for method, target, headers, body in store.requests:
        assert headers["host"] == f"{STORE}:{store.port}"
        # The bucket is in the signature, and not in the path.
        assert not target.startswith(f"/{BUCKET}"), target
        assert headers["authorization"] == signed_by_sdk(version, method, target, headers, None)
        assert body == (b"hello" if method == "PUT" else b"")
    assert STORE in names.asked and ENDPOINT not in names.asked
    store.close()


def test_a_certificate_for_the_buckets_of_the_endpoint_is_right(start, folder, names, certificates):
    store = Store(secure(certificates, "buckets", f"*.{ENDPOINT}"))
    gateway = configured(start, folder, names, paifang.secret("ca", **{"ca.crt": certificates.pem}),
                         *apis(named(store, "https", tls={"caSecretRef": {"name": "ca"}})))
    answer = Caller(gateway)("GET", "x")
    assert (answer.status, answer.body) == (200, b"ok"), (answer.code, answer.header("x-ca-error-message"))
    assert set(store.names) == {STORE}, "SNI"
    assert store.requests[0][2]["host"] == f"{STORE}:{store.port}"
    store.close()


@pytest.mark.parametrize("of", [ENDPOINT, f"another.{ENDPOINT}", f"*.{STORE}"])
def test_a_certificate_for_another_name_is_not(start, folder, names, certificates, of):
    store = Store(secure(certificates, "another", of))
    gateway = configured(start, folder, names, paifang.secret("ca", **{"ca.crt": certificates.pem}),
                         *apis(named(store, "https", tls={"caSecretRef": {"name": "ca"}})))
    answer = Caller(gateway)("GET", "x")
    assert (answer.status, answer.code) == (504, "D504CS"), answer
    assert "certificate is for another name" in answer.header("x-ca-error-message")
    assert set(store.names) == {STORE} and not store.requests
    store.close()


def test_a_form_goes_to_the_bucket_by_its_host(start, folder, names):
    store = Store()
    gateway = configured(start, folder, names, *apis(named(store), actions={"PostObject": "POST"}))
    assert Caller(gateway)("POST", "x", [("Content-Type", "multipart/form-data; boundary=b")], b"--b--").status == 200
    [(method, target, headers, body)] = store.requests
    assert (method, target, headers["host"], body) == ("POST", "/", f"{STORE}:{store.port}", b"--b--")
    store.close()


def test_a_bucket_whose_name_is_unknown(start, folder, names):
    store = Store()
    names.known = ()
    gateway = configured(start, folder, names, *apis(named(store)))
    answer = Caller(gateway)("GET", "x")
    assert (answer.status, answer.code) == (504, "D504RE"), answer
    assert STORE in answer.header("x-ca-error-message")
    store.close()


# === Access keys that change under load ===


class Checking(Store):
    """Takes what is signed with one of its keys, by botocore's signer, and nothing else."""

    def __init__(self, **secrets):
        self.secrets, self.used = secrets, []
        super().__init__()

    def judge(self, method, target, headers, _):
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        access, signed = re.search("Credential=([^/]*)/.*SignedHeaders=([^,]*)", headers["authorization"]).groups()
        request = AWSRequest(method, f"http://{headers['host']}{target}", headers={n: headers[n] for n in signed.split(";")})
        request.context["timestamp"] = headers["x-amz-date"]
        secret, token = self.secrets.get(access, (None, None))
        auth = S3SigV4Auth(Credentials(access, secret or "none", token), "s3", REGION)
        text = auth.string_to_sign(request, auth.canonical_request(request))
        self.used.append(access)
        if secret and headers["authorization"].endswith(f"Signature={auth.signature(text, request)}") and headers.get("x-amz-security-token") == token:
            return 200, b"ok"
        return 403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"


def test_a_key_changes_under_load_and_no_call_fails(start, folder):
    keys = {ACCESS_KEY: (SECRET, None), "AKID0001TEST": ("SECRET0001TEST", "TOKEN1"), "AKID0002TEST": ("SECRET0002TEST", None)}
    store = Checking(**keys)
    folder.write("all.yaml", *paifang.group("objects", HOST), *apis(oss(store.port)))

    def change(name):
        secret, token = keys[name]
        folder.write("secret.yaml", access_key(key=name, secret=secret, **({"securityToken": token} if token else {})))

    change(ACCESS_KEY)
    gateway = start(folder)
    failed, over = [], threading.Event()

    def calling(method, body):
        with wire.Connection(gateway.address("http")) as connection:
            while not over.is_set():
                connection.send(f"{method} /o/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                answer = connection.answer(method)
                if answer.status != 200:
                    failed.append((method, answer))

    threads = [threading.Thread(target=calling, args=row) for row in (("GET", b""), ("PUT", b"hello"), ("HEAD", b""), ("PUT", b"a" * 10000))]
    for thread in threads:
        thread.start()
    try:
        for name in ("AKID0001TEST", "AKID0002TEST", ACCESS_KEY, "AKID0001TEST"):
            change(name)
            # All that comes is signed with the new key, once the last request with the old one is over.
            assert upstreams.until(lambda: len(store.used) > 40 and set(store.used[-40:]) == {name}), (name, store.used[-40:], failed[:3])
    finally:
        over.set()
        for thread in threads:
            thread.join(20)
        store.close()
    assert not failed, failed[:3]
    assert set(store.used) == set(keys)
