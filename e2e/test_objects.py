"""Object stores: every action against a store that speaks S3 and refuses what is forged, and OSS's bytes against those of its SDKs."""

import concurrent.futures
import contextlib
import datetime
import email.utils
import hashlib
import os
import re
import subprocess
import time
import urllib.parse

import pytest

import paifang
import upstreams
import wire

HOST = "objects.localtest"
ACCESS_KEY, SECRET, REGION, BUCKET = "AKID0000TEST", "SECRET0000TEST", "us-east-1", "examplebucket"
KEYS = ["plain.txt", "a b.txt", "中文/文件.txt", "a+b&c=d.txt", "100%.txt", "x~_-.'()!*", "q?r#s", "deep/er/and/deeper", "\U0001f600"]


class Store:
    """A running versitygw."""

    def __init__(self, home):
        self.home, self.port = home, paifang.free_port()
        (home / "objects" / BUCKET).mkdir(parents=True)
        (home / "sidecar").mkdir()
        self.log = open(home / "store.log", "ab")
        self.process = None

    def start(self, access_key=ACCESS_KEY, secret=SECRET):
        environment = {**os.environ, "ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret}
        command = [paifang.tool("versitygw"), "--port", f"127.0.0.1:{self.port}", "--region", REGION,
                   "posix", "--sidecar", self.home / "sidecar", self.home / "objects"]
        self.process = subprocess.Popen([str(c) for c in command], env=environment, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        assert upstreams.until(self._answers, 30), (self.home / "store.log").read_text()
        return self

    def _answers(self):
        try:
            return wire.get(("127.0.0.1", self.port), "/", "127.0.0.1") is not None
        except OSError:
            return False

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def path(self, key):
        return self.home / "objects" / BUCKET / key


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store")).start()
    yield store
    store.stop()


def oss(port, *, dialect="S3", credentials="store", region=REGION, host="127.0.0.1", **spec):
    return {"oss": {"endpoint": f"http://{host}:{port}", "bucket": BUCKET, "region": region, "dialect": dialect,
                    "credentialsRef": {"name": credentials}, **spec}}


def access_key(name="store", key=ACCESS_KEY, secret=SECRET, **more):
    return paifang.secret(name, accessKeyId=key, accessKeySecret=secret, **more)


ACTIONS = {"GetObject": "GET", "PutObject": "PUT", "HeadObject": "HEAD", "DeleteObject": "DELETE"}


def apis(backend, *, prefix="/o", key="/*", actions=ACTIONS, name="", timeout="5s", **spec):
    """An Api for each action, at PREFIX/*."""
    return [paifang.api(f"{name}{action.lower()}", "objects", f"{prefix}/*", {**backend, "timeout": timeout, "object": {"action": action, "key": key}},
                        method=method, **spec) for action, method in actions.items()]


def quoted(key):
    return urllib.parse.quote(key)


class Caller:
    def __init__(self, gateway, prefix="/o"):
        self.gateway, self.prefix = gateway, prefix

    def __call__(self, method, key, headers=(), body=b"", **options):
        return wire.request(self.gateway.address("http"), method, f"{self.prefix}/{key}", HOST, headers, body, **options)


def detail(gateway, text):
    """Whether the log says so: what callers are not told."""
    return upstreams.until(lambda: text in gateway.text(), 5)


# === Against a real store, dialect S3 ===


@pytest.fixture(scope="module")
def gateway(module_start, store):
    down = paifang.free_port()
    post, meta = {"PostObject": "POST"}, {"GetObjectMeta": "HEAD"}
    constants = {"constants": [{"name": "response-content-type", "in": "Query", "value": "text/x-api"}]}
    return module_start([
        *paifang.group("objects", HOST),
        access_key(),
        access_key("wrong-secret", secret="another"),
        access_key("wrong-key", key="AKID0000NONE"),
        *apis(oss(store.port)),
        *apis(oss(store.port), name="form-", prefix="/form", actions=post),
        *apis(oss(store.port), name="meta-", prefix="/meta", actions=meta),
        *apis(oss(store.port), name="below-", prefix="/below", key="/users/alice/*"),
        *apis({**oss(store.port), **constants}, name="said-", prefix="/said", actions={"GetObject": "GET"}),
        *apis(oss(store.port, credentials="wrong-secret"), name="secret-", prefix="/secret"),
        *apis(oss(store.port, credentials="wrong-key"), name="key-", prefix="/key"),
        *apis(oss(store.port, region="eu-west-9"), name="region-", prefix="/region"),
        *apis(oss(down), name="down-", prefix="/down"),
        paifang.api("one", "objects", "/one/[user]/[file]", {**oss(store.port), "object": {"action": "GetObject", "key": "/users/[user]/[file]"}},
                    parameters=[{"name": n, "in": "Path", "type": "String", "required": True} for n in ("user", "file")]),
    ], extra=["--max-object", "96MiB"])


@pytest.fixture
def call(gateway):
    return Caller(gateway)


@pytest.mark.parametrize("key", KEYS)
def test_an_object_is_written_read_and_removed(call, store, key):
    at = quoted(key)
    body = f"of {key}".encode()
    written = call("PUT", at, [("Content-Type", "text/plain"), ("x-amz-meta-who", "me")], body)
    assert written.status == 200, (written.code, written.body)
    assert store.path(key).read_bytes() == body
    read = call("GET", at)
    assert (read.status, read.body) == (200, body)
    assert read.header("content-type") == "text/plain" and read.header("x-amz-meta-who") == "me"
    assert read.header("etag") == f'"{hashlib.md5(body).hexdigest()}"' == written.header("etag")
    assert read.header("x-ca-request-id") and read.code is None
    head = call("HEAD", at)
    assert (head.status, head.header("content-length"), head.header("etag")) == (200, str(len(body)), read.header("etag"))
    assert call("DELETE", at).status == 204
    assert not store.path(key).exists()
    gone = call("GET", at)
    assert gone.status == 404 and gone.code is None and b"NoSuchKey" in gone.body, (gone.code, gone.body)
    assert call("DELETE", at).status == 204


def test_an_object_may_be_empty(call, store):
    assert call("PUT", "empty", body=b"").status == 200
    assert store.path("empty").stat().st_size == 0
    read = call("GET", "empty")
    assert (read.status, read.body, read.header("content-length")) == (200, b"", "0")
    assert call("HEAD", "empty").header("content-length") == "0"


def test_ranges(call):
    call("PUT", "ten", body=b"0123456789")
    for asked, body, said in (("bytes=0-3", b"0123", "bytes 0-3/10"), ("bytes=-3", b"789", "bytes 7-9/10"), ("bytes=7-", b"789", "bytes 7-9/10")):
        part = call("GET", "ten", [("Range", asked)])
        assert (part.status, part.body, part.header("content-range")) == (206, body, said)
    beyond = call("GET", "ten", [("Range", "bytes=999-")])
    assert beyond.status == 416 and beyond.code is None
    whole = call("GET", "ten", [("Range", "bytes=0-3"), ("If-Range", '"of another version"')])
    assert (whole.status, whole.body) == (200, b"0123456789")


def test_conditional_requests(call, store):
    tag = call("PUT", "versioned", body=b"one").header("etag")
    os.utime(store.path("versioned"), (1_700_000_000, 1_700_000_000))  # A whole second, as HTTP tells it.
    modified = call("GET", "versioned").header("last-modified")
    rows = (
        ("GET", ("If-None-Match", tag), 304), ("HEAD", ("If-None-Match", tag), 304), ("GET", ("If-None-Match", '"other"'), 200),
        ("GET", ("If-Match", tag), 200), ("GET", ("If-Match", '"other"'), 412), ("GET", ("If-Modified-Since", modified), 304),
        ("GET", ("If-Unmodified-Since", "Mon, 01 Jan 2001 00:00:00 GMT"), 412),
    )
    for method, header, status in rows:
        answer = call(method, "versioned", [header])
        assert answer.status == status and answer.code is None, (method, header, answer)
    assert call("PUT", "versioned", [("If-None-Match", "*")], b"two").status == 412
    assert call("GET", "versioned").body == b"one"


def test_a_digest_that_differs_is_refused_by_the_store(call, store):
    wrong = call("PUT", "digest", [("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg==")], b"not empty")
    assert wrong.status == 400 and wrong.code is None and b"BadDigest" in wrong.body, wrong
    assert not store.path("digest").exists()


def test_what_the_caller_may_not_say_does_not_reach_the_store(call, store):
    call("PUT", "mine", body=b"mine")
    for query in ("acl", "uploads", "tagging", "versionId=0", "policy", "list-type=2", "response-content-type=text%2Fhtml", "X-Amz-Expires=1"):
        answer = call("GET", f"mine?{query}")
        assert (answer.status, answer.body) == (200, b"mine"), query
        assert answer.header("content-type") != "text/html"
    headers = [("Authorization", "AWS4-HMAC-SHA256 forged"), ("Cookie", "a=b"), ("x-amz-copy-source", f"/{BUCKET}/mine"), ("x-amz-acl", "public-read"),
               ("x-amz-security-token", "forged"), ("x-amz-storage-class", "GLACIER"), ("x-amz-write-offset-bytes", "4")]
    assert call("PUT", "copy", headers, b"not a copy").status == 200
    assert store.path("copy").read_bytes() == b"not a copy"
    assert call("PUT", "mine?tagging", body=b"<Tagging/>").status == 200
    assert store.path("mine").read_bytes() == b"<Tagging/>"
    assert call("DELETE", "mine?tagging").status == 204
    assert not store.path("mine").exists()


def test_an_api_may_say_how_it_is_answered(gateway, call):
    call("PUT", "said", [("Content-Type", "text/html")], b"said")
    said = Caller(gateway, "/said")
    for query in ("", "?response-content-type=text%2Fhtml"):
        answer = said("GET", f"said{query}")
        assert (answer.status, answer.header("content-type")) == (200, "text/x-api"), query


CLIMBING = ["../x", "a/../../x", "%2e%2e/x", "a/%2e%2e/%2e%2e/x", "..%2fx", "a%2fb", "a//b", "//x", "a%5cb", "%5c..%5cx", "a%00b", "a/..;/x",
            "%c0%ae%c0%ae/x", "a/%2E%2E%2Fx"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("key", CLIMBING)
def test_no_key_climbs_out_of_its_prefix(gateway, store, method, key):
    store.path("users").mkdir(exist_ok=True)
    store.path("x").write_bytes(b"not yours")
    answer = Caller(gateway, "/below")(method, key, body=b"climbed" if method == "PUT" else b"")
    assert answer.status in (400, 404), (answer.status, answer.code, answer.body)
    assert b"not yours" not in answer.body
    assert store.path("x").read_bytes() == b"not yours" and store.path("").exists()
    assert all(b"climbed" not in path.read_bytes() for path in store.path("").rglob("*") if path.is_file())


def test_a_parameter_is_one_segment(gateway, store):
    store.path("users/alice/private").mkdir(parents=True, exist_ok=True)
    store.path("users/alice/private/x").write_bytes(b"not yours")
    answer = wire.get(gateway.address("http"), "/one/alice/private%2Fx", HOST)
    assert (answer.status, answer.code) == (400, "I400PA")
    store.path("users/alice/y").write_bytes(b"yours")
    assert wire.get(gateway.address("http"), "/one/alice/y", HOST).body == b"yours"


def test_nobody_reaches_the_bucket(gateway, store):
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        assert Caller(gateway)(method, "").status == 400, method
    assert store.path("").exists()


def test_object_meta_is_a_plain_head_for_s3(gateway, call):
    call("PUT", "meta", body=b"1234")
    answer = Caller(gateway, "/meta")("HEAD", "meta")
    assert (answer.status, answer.header("content-length")) == (200, "4")


def test_a_form_that_its_caller_signed_goes_to_the_bucket(gateway, store):
    import base64
    import hmac

    now = datetime.datetime.now(datetime.timezone.utc)
    day, stamp = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{ACCESS_KEY}/{day}/{REGION}/s3/aws4_request"
    until = (now + datetime.timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = {"key": "posted/by form.txt", "x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": scope, "x-amz-date": stamp}
    conditions = [{"bucket": BUCKET}, *({n: v} for n, v in fields.items())]
    fields["policy"] = base64.b64encode(repr({"expiration": until, "conditions": conditions}).replace("'", '"').encode()).decode()

    def form(secret):
        key = f"AWS4{secret}".encode()
        for step in (day, REGION, "s3", "aws4_request"):
            key = hmac.digest(key, step.encode(), "sha256")
        signed = {**fields, "x-amz-signature": hmac.new(key, fields["policy"].encode(), "sha256").hexdigest()}
        parts = [f'--form\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in signed.items()]
        parts.append('--form\r\nContent-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: text/plain\r\n\r\nposted\r\n--form--\r\n')
        return "".join(parts).encode()

    post = Caller(gateway, "/form")
    answer = post("POST", "x", [("Content-Type", "multipart/form-data; boundary=form")], form(SECRET))
    assert answer.status == 204, (answer.code, answer.body)
    assert store.path("posted/by form.txt").read_bytes() == b"posted"
    forged = post("POST", "x", [("Content-Type", "multipart/form-data; boundary=form")], form("another"))
    assert forged.status == 403 and forged.code is None, forged
    assert post("POST", "x", [("Content-Type", "application/json")], b"{}").code == "I400CT"


def test_s3_wants_to_know_the_length(gateway):
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(f"PUT /o/chunked HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode())
        answer = connection.answer("PUT")
    assert (answer.status, answer.code) == (400, "I400MH") and "Content-Length" in answer.header("x-ca-error-message")


def test_an_object_over_the_limit(gateway):
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(f"PUT /o/large HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {97 << 20}\r\n\r\n".encode())
        answer = connection.answer("PUT")
    assert (answer.status, answer.code) == (413, "I413RL")


def _memory(gateway, field):
    with open(f"/proc/{gateway.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) * 1024


def test_large_objects_are_streamed_both_ways(gateway, store):
    size, block = 64 << 20, os.urandom(1 << 20)
    before, digest = _memory(gateway, "VmRSS"), hashlib.sha256()
    with wire.Connection(gateway.address("http"), timeout=120) as connection:
        connection.send(f"PUT /o/big HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // len(block)):
            connection.send(block)
            digest.update(block)
        answer = connection.answer("PUT")
    assert answer.status == 200, (answer.code, answer.body)
    assert store.path("big").stat().st_size == size
    read = Caller(gateway)("GET", "big", timeout=120)
    assert (read.status, hashlib.sha256(read.body).digest()) == (200, digest.digest())
    assert _memory(gateway, "VmHWM") - before < 32 << 20
    store.path("big").unlink()


MOST_MEMORY = 64 << 20


def _vast(size):
    """A store whose every object has `size` bytes, and that forgets what is put."""
    block = bytes(1 << 20)

    def serve(connection, _):
        reader = connection.makefile("rb", buffering=1 << 20)
        while line := reader.readline():
            length = 0
            while (header := reader.readline()) not in (b"\r\n", b""):
                name, _, value = header.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            if line.startswith(b"GET"):
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
                for _ in range(size // len(block)):
                    connection.sendall(block)
                continue
            while length:
                data = reader.read(min(length, len(block)))
                if not data:
                    return
                length -= len(data)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    return upstreams.Upstream(serve)


def _skip(connection, size):
    """Reads the head of an answer and so many bytes."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536) or pytest.fail("closed inside a head")
    head, _, rest = head.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    left = size - len(rest)
    while left:
        data = connection.recv(min(left, 1 << 20))
        assert data, f"{left} bytes are missing"
        left -= len(data)


def test_objects_of_any_size_and_slow_callers_take_at_most_64_mib(start, folder):
    size, at_once = 256 << 20, 8
    one, many = _vast(size), _vast(size // at_once)
    folder.write("all.yaml", *paifang.group("objects", HOST), access_key(),
                 *apis(oss(one.port), name="one-", prefix="/one", timeout="30s"),
                 *apis(oss(many.port), name="many-", prefix="/many", timeout="30s"))
    gateway = start(folder)

    def ask(line, *more):
        return "\r\n".join([f"{line} HTTP/1.1", f"Host: {HOST}", *more, "", ""]).encode()

    with wire.Connection(gateway.address("http"), timeout=120) as connection:
        connection.send(ask("GET /one/big"))
        _skip(connection.socket, size)
    with wire.Connection(gateway.address("http"), timeout=120) as connection:
        connection.send(ask("PUT /one/big", f"Content-Length: {size}"))
        block = bytes(1 << 20)
        for _ in range(size // len(block)):
            connection.send(block)
        assert connection.answer("PUT").status == 200
    # All are asked for, and read one after the other: what waits for its turn stays in the sockets.
    with contextlib.ExitStack() as open_connections:
        waiting = [open_connections.enter_context(wire.Connection(gateway.address("http"), timeout=120)) for _ in range(at_once)]
        for connection in waiting:
            connection.send(ask("GET /many/big"))
        for connection in waiting:
            _skip(connection.socket, size // at_once)
    one.close()
    many.close()
    assert _memory(gateway, "VmHWM") <= MOST_MEMORY


def test_a_body_may_take_longer_than_the_apis_timeout_while_it_goes_on(start, folder, store):
    folder.write("all.yaml", *paifang.group("objects", HOST), access_key(), *apis(oss(store.port), timeout="1s"))
    gateway = start(folder)
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(f"PUT /o/slow HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\n".encode())
        for byte in b"0123456789":
            time.sleep(0.25)
            connection.send(bytes([byte]))
        assert connection.answer("PUT").status == 200
    assert store.path("slow").read_bytes() == b"0123456789"


# === What is the gateway's own fault ===


@pytest.mark.parametrize("prefix, said", [
    ("/secret", "access key of Secret default/wrong-secret is refused: SignatureDoesNotMatch"),
    ("/key", "access key of Secret default/wrong-key is refused"),
    ("/region", "region eu-west-9, which is refused"),
])
def test_credentials_that_the_store_refuses_are_not_the_callers_fault(gateway, call, prefix, said):
    call("PUT", "there", body=b"there")
    for method in ("GET", "PUT", "DELETE"):
        answer = Caller(gateway, prefix)(method, "there")
        assert (answer.status, answer.code, answer.body) == (502, "D502OS", b""), (answer.status, answer.code, answer.body)
        assert ACCESS_KEY not in str(answer.headers)
    assert detail(gateway, said), gateway.text()[-3000:]
    assert SECRET not in gateway.text() and "another" not in gateway.text()


def test_a_store_that_is_down(gateway):
    answer = Caller(gateway, "/down")("GET", "x")
    assert (answer.status, answer.code) == (504, "D504CO")


def test_a_missing_secret_is_an_explained_refusal(start, folder, store):
    folder.write("all.yaml", *paifang.group("objects", HOST), *apis(oss(store.port)))
    gateway = start(folder)
    answer = Caller(gateway)("GET", "x")
    assert (answer.status, answer.code) == (500, "X500AM")
    folder.write("secret.yaml", access_key())
    assert upstreams.until(lambda: Caller(gateway)("PUT", "late", body=b"late").status == 200)


def test_a_key_is_rotated_while_callers_call(start, folder, tmp_path):
    store = Store(tmp_path / "store").start()
    try:
        folder.write("all.yaml", *paifang.group("objects", HOST), *apis(oss(store.port)))
        folder.write("secret.yaml", access_key())
        gateway = start(folder)
        call = Caller(gateway)
        assert call("PUT", "x", body=b"x").status == 200
        store.stop()
        store.start("AKID0001TEST", "SECRET0001TEST")
        assert upstreams.until(lambda: call("GET", "x").code == "D502OS")
        metrics = wire.get(gateway.address("admin"), "/metrics", "admin").body.decode()
        assert re.search(r'^paifang_backend_errors_total{backend="inline",stage="RELEASE",type="OSS",code="D502OS"} [1-9]', metrics, re.M), metrics
        folder.write("secret.yaml", access_key(key="AKID0001TEST", secret="SECRET0001TEST"))
        assert upstreams.until(lambda: call("GET", "x").status == 200)
        for _ in range(20):
            assert call("GET", "x").status == 200
    finally:
        store.stop()


# === A store that misbehaves ===


def _say(data):
    return lambda connection, head, body: connection.sendall(data)


def _stalls(connection, head, body):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes!")
    time.sleep(30)
    return False


def _drips(connection, head, body):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    for byte in b"0123456789":
        time.sleep(0.3)
        connection.sendall(bytes([byte]))


def error(code, status=403, date=None, length=True, padding=0):
    date = email.utils.format_datetime(date or datetime.datetime.now(datetime.timezone.utc), usegmt=True)
    body = f"<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{'m' * padding}</Message></Error>".encode()
    framing = f"Content-Length: {len(body)}\r\n\r\n".encode() + body if length else b"Connection: close\r\n\r\n" + body
    return f"HTTP/1.1 {status} Error\r\nDate: {date}\r\nx-oss-request-id: 5FTEST\r\n".encode() + framing


def _skewed():
    return error("RequestTimeTooSkewed", date=datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=2))


MISBEHAVES = {
    "resets-at-once": (upstreams.say_and_reset(b""), 502, "N502RE"),
    "resets-in-head": (upstreams.say_and_reset(b"HTTP/1.1 200 OK\r\nETag: "), 502, "N502RE"),
    "garbage": (upstreams.say_and_reset(b"\x16\x03\x01 this is no HTTP\r\n\r\n"), 502, "N502RE"),
    "silent": (upstreams.silent, 504, "D504TO"),
    "skewed": (lambda c, h, b: c.sendall(_skewed()), 502, "D502OS"),
    "token-out-of-date": (lambda c, h, b: c.sendall(error("SecurityTokenExpired")), 502, "D502OS"),
    "denied": (lambda c, h, b: c.sendall(error("AccessDenied")), 403, None),
    "absent": (lambda c, h, b: c.sendall(error("NoSuchKey", 404)), 404, None),
    "busy": (lambda c, h, b: c.sendall(error("SlowDown", 503)), 503, None),
    "large-error": (lambda c, h, b: c.sendall(error("AccessDenied", padding=100_000)), 403, None),
    "error-without-end": (lambda c, h, b: c.sendall(error("AccessDenied", length=False, padding=100_000)), 502, "N502RE"),
    "error-cut": (upstreams.say_and_reset(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 500\r\n\r\n<Error><Code>Acc"), 502, "N502RE"),
    "stalls": (_stalls, None, None),
    "resets-in-body": (upstreams.say_and_reset(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes!"), None, None),
    "drips": (_drips, 200, None),
}


@pytest.fixture(scope="module")
def misbehaving(module_start):
    running = {name: upstreams.answering(answer) for name, (answer, *_) in MISBEHAVES.items()}
    objects = [*paifang.group("objects", HOST), access_key()]
    for name, upstream in running.items():
        objects += apis(oss(upstream.port, dialect="OSS"), name=f"{name}-", prefix=f"/{name}", timeout="1s")
    yield module_start(objects)
    for upstream in running.values():
        upstream.close()


@pytest.mark.parametrize("name", [name for name, (_, status, _) in MISBEHAVES.items() if status])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_store_that_misbehaves(misbehaving, name, method):
    _, status, code = MISBEHAVES[name]
    answer = Caller(misbehaving, f"/{name}")(method, "x", body=b"body" if method == "PUT" else b"")
    assert (answer.status, answer.code) == (status, code), answer
    if name == "skewed":
        assert detail(misbehaving, "clock differs from the store's by 7"), misbehaving.text()[-2000:]
        assert detail(misbehaving, "the store's request id is 5FTEST")
    if name == "drips":
        assert answer.body == b"0123456789"


@pytest.mark.parametrize("name", ["stalls", "resets-in-body"])
def test_an_object_that_is_cut_looks_cut(misbehaving, name):
    with pytest.raises(ConnectionError):
        Caller(misbehaving, f"/{name}")("GET", "x")


def test_a_store_that_resets_in_the_middle_of_an_upload(start, folder):
    def serve(connection, _):
        connection.recv(65536)
        upstreams.reset(connection)

    upstream = upstreams.Upstream(serve)
    folder.write("all.yaml", *paifang.group("objects", HOST), access_key(), *apis(oss(upstream.port, dialect="OSS")))
    gateway = start(folder)
    with wire.Connection(gateway.address("http")) as connection:
        try:
            connection.send(f"PUT /o/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {64 << 20}\r\n\r\n".encode())
            for _ in range(64):
                connection.send(bytes(1 << 20))
        except ConnectionError:
            pass  # The gateway need not read what nobody wants.
        answer = connection.answer("PUT")
    assert answer is None or answer.code in ("N502RE", "D504CO"), answer
    upstream.close()


# === Dialect OSS: bytes against those of the official SDK ===


KEY = "a b/中+&=.txt"
TOKEN = "TOKEN/0000+TEST=="
# What HTTP libraries add by themselves, and what changes with the clock.
NOT_COMPARED = {"user-agent", "accept", "accept-encoding", "connection", "via", "host", "content-length", "date", "x-oss-date", "authorization"}


@pytest.fixture(scope="module")
def seen():
    seen = upstreams.Seen(b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "e"\r\nx-oss-next-append-position: 1\r\n\r\n')
    yield seen
    seen.close()


@pytest.fixture(scope="module")
def oss_gateway(module_start, seen):
    objects = [*paifang.group("objects", HOST), access_key(), access_key("temporary", securityToken=TOKEN)]
    for version in ("V4", "V1"):
        for secret in ("store", "temporary"):
            backend = oss(seen.port, dialect="OSS", region="cn-hangzhou", signatureVersion=version, credentials=secret)
            rows = {**ACTIONS, "AppendObject": "POST"}
            objects += apis(backend, name=f"{version}-{secret}-".lower(), prefix=f"/{version}/{secret}", actions=rows)
            objects += apis(backend, name=f"{version}-{secret}-meta-".lower(), prefix=f"/{version}/{secret}-meta", actions={"GetObjectMeta": "HEAD"})
    return module_start(objects)


CALLS = {
    "PutObject": ("PUT", "", [("Content-Type", "text/plain"), ("x-oss-meta-who", "me"), ("Content-MD5", "XUFAKrxLKna5cZ2REBfFkg==")], b"hello"),
    "GetObject": ("GET", "", [], b""),
    "GetObject, a range": ("GET", "", [("Range", "bytes=0-3"), ("If-Match", '"e"')], b""),
    "HeadObject": ("HEAD", "", [], b""),
    "GetObjectMeta": ("HEAD", "", [], b""),
    "AppendObject": ("POST", "?position=12", [("Content-Type", "text/plain")], b"hello"),
    "DeleteObject": ("DELETE", "", [], b""),
}


def of_sdk(name, port, version, token):
    """The same call made by the official SDK's client."""
    import alibabacloud_oss_v2 as sdk

    config = sdk.config.load_default()
    config.endpoint, config.region = f"http://127.0.0.1:{port}", "cn-hangzhou"
    config.signature_version = version.lower()
    config.credentials_provider = sdk.credentials.StaticCredentialsProvider(ACCESS_KEY, SECRET, token)
    client, at = sdk.Client(config), {"bucket": BUCKET, "key": KEY}
    put = {"content_type": "text/plain", "body": b"hello"}
    match name.split(",")[0]:
        case "PutObject":
            client.put_object(sdk.PutObjectRequest(**at, **put, metadata={"who": "me"}, content_md5="XUFAKrxLKna5cZ2REBfFkg=="))
        case "GetObject" if "range" in name:
            client.get_object(sdk.GetObjectRequest(**at, range_header="bytes=0-3", if_match='"e"'))
        case "GetObject":
            client.get_object(sdk.GetObjectRequest(**at))
        case "HeadObject":
            client.head_object(sdk.HeadObjectRequest(**at))
        case "GetObjectMeta":
            client.get_object_meta(sdk.GetObjectMetaRequest(**at))
        case "AppendObject":
            client.append_object(sdk.AppendObjectRequest(**at, body=b"hello", position=12, headers={"Content-Type": "text/plain"}))
        case "DeleteObject":
            client.delete_object(sdk.DeleteObjectRequest(**at))


def signed_by_sdk(version, method, target, headers, token):
    """The Authorization that the official SDK's signer gives this very request."""
    from alibabacloud_oss_v2.credentials import Credentials
    from alibabacloud_oss_v2.signer import SignerV1, SignerV4
    from alibabacloud_oss_v2.types import HttpRequest, SigningContext

    # In V1 the SDK sends a token under another name than OSS documents, and does not sign it; as a header of the request it does.
    given = None if version == "V1" else token
    kept = {n: v for n, v in headers.items() if n not in ("authorization", "host", "date", "x-oss-date")}
    request = HttpRequest(method, f"http://h{target}", headers=kept)
    context = SigningContext(product="oss", region="cn-hangzhou", bucket=BUCKET, key=KEY, request=request,
                             signing_time=email.utils.parsedate_to_datetime(headers["date"]), credentials=Credentials(ACCESS_KEY, SECRET, given))
    context.sub_resource = []
    (SignerV1() if version == "V1" else SignerV4()).sign(context)
    return request.headers["Authorization"]


@pytest.mark.parametrize("token", [None, TOKEN], ids=["key", "token"])
@pytest.mark.parametrize("version", ["V4", "V1"])
@pytest.mark.parametrize("name", CALLS)
def test_requests_to_oss_are_those_of_the_official_sdk(oss_gateway, seen, name, version, token):
    method, query, headers, body = CALLS[name]
    seen.requests.clear()
    of_sdk(name, seen.port, version, token)
    prefix = f"/{version}/{'temporary' if token else 'store'}{'-meta' if name == 'GetObjectMeta' else ''}"
    answer = Caller(oss_gateway, prefix)(method, quoted(KEY) + query, headers, body)
    assert answer.status == 200, answer
    theirs, ours = seen.requests
    assert ours[:2] == theirs[:2], "method and target"
    assert ours[3] == theirs[3] == body

    def compared(headers):
        return {n: v for n, v in headers.items() if n not in NOT_COMPARED}

    expected = compared(theirs[2])
    if name == "DeleteObject":
        expected.pop("content-md5", None)  # Of no body; the other official SDKs send none.
    if version == "V1" and token:
        expected["x-oss-security-token"] = expected.pop("security-token")
    assert compared(ours[2]) == expected
    assert ours[2]["authorization"] == signed_by_sdk(version, method, ours[1], ours[2], token)
    shape = r"OSS \w+:[\w+/=]{28}" if version == "V1" else rf"OSS4-HMAC-SHA256 Credential={ACCESS_KEY}/\d{{8}}/cn-hangzhou/oss/aliyun_v4_request,Signature=[0-9a-f]{{64}}"
    assert re.fullmatch(shape, theirs[2]["authorization"]) and re.fullmatch(shape, ours[2]["authorization"])


def test_a_form_for_oss_goes_to_the_bucket_unsigned(start, folder, seen):
    folder.write("all.yaml", *paifang.group("objects", HOST), access_key(), *apis(oss(seen.port, dialect="OSS"), actions={"PostObject": "POST"}))
    gateway = start(folder)
    seen.requests.clear()
    form = [("Content-Type", "multipart/form-data; boundary=b"), ("Authorization", "mine"), ("x-oss-object-acl", "public-read")]
    assert Caller(gateway)("POST", "x?acl", form, b"--b--").status == 200
    [(method, target, headers, body)] = seen.requests
    assert (method, target, body) == ("POST", f"/{BUCKET}", b"--b--")
    assert "authorization" not in headers and not [n for n in headers if n.startswith("x-")]


def test_the_bucket_stands_in_front_of_a_named_endpoint(start, folder, seen, tmp_path):
    """`bucket.endpoint` as Host, as name to resolve, and not in the path."""
    folder.write("all.yaml", *paifang.group("objects", HOST), access_key(), *apis(oss(seen.port, dialect="OSS", host="oss.localtest")))
    gateway = start(folder)
    answer = Caller(gateway)("GET", "x")
    assert (answer.status, answer.code) == (504, "D504RE")
    assert f"{BUCKET}.oss.localtest" in answer.header("x-ca-error-message")


# === S3: signatures against botocore's ===


def test_signatures_for_s3_are_those_of_botocore(start, folder, seen):
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    folder.write("all.yaml", *paifang.group("objects", HOST), access_key(securityToken=TOKEN), *apis(oss(seen.port)))
    gateway = start(folder)
    seen.requests.clear()
    rows = [("PUT", [("Content-Type", "text/plain;  a=b"), ("x-amz-meta-who", "you   and me")], b"hello"),
            ("GET", [("Range", "bytes=0-3"), ("If-None-Match", '"a"')], b""), ("HEAD", [], b""), ("DELETE", [], b"")]
    for method, headers, body in rows:
        assert Caller(gateway)(method, quoted(KEY), headers, body).status == 200
    assert len(seen.requests) == len(rows)
    for method, target, headers, _ in seen.requests:
        authorization = headers["authorization"]
        signed = re.search("SignedHeaders=([^,]*)", authorization).group(1).split(";")
        request = AWSRequest(method, f"http://{headers['host']}{target}", headers={n: headers[n] for n in signed})
        request.context["timestamp"] = headers["x-amz-date"]
        auth = S3SigV4Auth(Credentials(ACCESS_KEY, SECRET, TOKEN), "s3", REGION)
        text = auth.string_to_sign(request, auth.canonical_request(request))
        assert authorization.endswith(f"Signature={auth.signature(text, request)}"), (method, signed)
        assert {"host", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"} <= set(signed)
