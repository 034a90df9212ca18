"""Functions and buses of Alibaba Cloud: what is sent, against what the official SDKs send; and access keys that are missing, wrong or changed.

The live services are not asked: where a vector of bytes decides, it comes from the SDK that runs beside this."""

import base64
import json
import re
import subprocess
import sys
import threading
import urllib.parse

import pytest

import paifang
import upstreams
import wire

HOST = "alibaba.localtest"
KEY, SECRET, TOKEN = "AKID0000TEST", "SECRET0000TEST", "TOKEN/0000+TEST=="
SDK = paifang.REPO / "e2e/clients/alibaba/sdk.py"
SDK_FOLDERS = {"bus-data": "eventbridge"}
# One answer that all of them read: of a function, and of either API of a bus.
ANSWER = json.dumps({"statusCode": 200, "body": "ok", "RequestId": "r", "Success": True, "FailedEntryCount": 0,
                     "EntryList": [{"EventId": "of-the-bus"}]}).encode()


def answer(status, body):
    return f"HTTP/1.1 {status} It\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def sdk(name, do, key, **job):
    """What the official SDK does, in a process of its own: each list of packages is a folder of its own."""
    folder = paifang.REPO / ".cache/sdk" / SDK_FOLDERS.get(name, "alibaba")
    assert (folder / ".installed").exists(), f"{folder} is missing: run e2e/setup.sh"
    job = {"sdk": name, "do": do, "key": key, **job}
    done = subprocess.run([sys.executable, SDK], input=json.dumps(job), capture_output=True, text=True, timeout=60,
                          env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def signed_by_sdk(name, key, request):
    method, target, headers, body = request
    return sdk(name, "sign", key, request=[method, target, headers, base64.b64encode(body).decode()])


def access_key(name, key=KEY, secret=SECRET, **more):
    return paifang.secret(name, accessKeyId=key, accessKeySecret=secret, **more)


def function(port, version, kind, credentials):
    alibaba = {"version": version, "region": "cn-hangzhou", "function": "fn", "endpoint": f"http://127.0.0.1:{port}"}
    if version == "2.0":
        alibaba["service"] = "svc"
    return "FunctionCompute", {"functionCompute": {"alibaba": alibaba, "kind": kind, "credentialsRef": {"name": credentials}}}


def bus(port, api, credentials):
    alibaba = {"region": "cn-hangzhou", "bus": "orders & co", "source": "my.app", "endpoint": f"http://127.0.0.1:{port}", "api": api}
    return "EventBridge", {"eventBridge": {"alibaba": alibaba, "credentialsRef": {"name": credentials}}}


BACKENDS = {
    "fc2-event": lambda port, credentials: function(port, "2.0", "Event", credentials),
    "fc2-http": lambda port, credentials: function(port, "2.0", "HTTP", credentials),
    "fc3-event": lambda port, credentials: function(port, "3.0", "Event", credentials),
    "fc3-http": lambda port, credentials: function(port, "3.0", "HTTP", credentials),
    "bus-data": lambda port, credentials: bus(port, "Data", credentials),
    "bus-control": lambda port, credentials: bus(port, "Control", credentials),
}


def served(name, port, credentials, at=None):
    """A backend service of this kind, and an Api that goes there: POST /AT/*."""
    at = at or name
    of, config = BACKENDS[name](port, credentials)
    backend = {"serviceRef": {"name": at}, "timeout": "3s"}
    parameters = None
    if of == "EventBridge":
        backend["event"] = {"type": "com.example.order", "subject": "orders/[id]"}
        parameters = [{"name": "id", "in": "Path", "type": "String", "required": True}]
    return [
        paifang.kind(at, "BackendService", displayName=f"service_{at}".replace("-", "_"), type=of, stages={"RELEASE": config}),
        paifang.api(at, "g", f"/{at}/[id]/*" if parameters else f"/{at}/*", backend, method="POST", parameters=parameters),
    ]


def post(gateway, path, body=b"hello", *headers):
    return wire.request(gateway.address("http"), "POST", path, HOST, headers=[("Content-Type", "text/plain"), *headers], body=body)


# === Bytes ===


@pytest.fixture(scope="module")
def seen():
    seen = upstreams.Seen(answer(200, ANSWER))
    yield seen
    seen.close()


@pytest.fixture(scope="module")
def gateway(module_start, seen):
    objects = [*paifang.group("g", HOST), access_key("key"), access_key("token", securityToken=TOKEN)]
    for name in BACKENDS:
        for credentials in ("key", "token"):
            objects += served(name, seen.port, credentials, f"{name}-{credentials}")
    return module_start(objects)


# What changes from call to call, and how the SDK says that it was handed a key and did not find one.
CHANGING = {"x-acs-date", "x-acs-signature-nonce", "x-acs-credentials-provider", "x-acs-content-sha256"}


def compared(headers):
    """The headers that the services give a meaning."""
    return {name: value for name, value in headers.items()
            if name == "content-type" or name.startswith(("x-acs-", "x-fc-", "x-eventbridge-")) and name not in CHANGING}


def event_of(name, body):
    """The event that was put, by its names in CloudEvents."""
    if name == "bus-data":
        [event] = json.loads(body)
        return event
    [event] = json.loads(urllib.parse.parse_qs(body.decode(), strict_parsing=True)["EventList"][0])
    return {name.lower(): value for name, value in event.items()}


def same_call_of_sdk(name, key, port, ours):
    """The same call by the SDK: an event with the id, time and data of ours, a function with its body and path."""
    job = {"endpoint": f"127.0.0.1:{port}", "service": "svc", "function": "fn", "qualifier": "LATEST", "bus": "orders & co"}
    method, target, headers, body = ours
    if name.startswith("bus"):
        job["event"] = event_of(name, body)
    else:
        path, _, query = target.partition("?")
        below = path.partition("/fn/")[2]
        job.update(body=body.decode(), path=f"/{urllib.parse.unquote(below)}", query=dict(urllib.parse.parse_qsl(query)))
    sdk(name, "call", key, **job)


def same_body(name, ours, theirs):
    # A batch is JSON, in which order and spaces have no meaning, and which nothing signs.
    return json.loads(ours) == json.loads(theirs) if name == "bus-data" else ours == theirs


PATH = "a%20b/%E4%B8%AD.txt?b=2&a=%E4%B8%AD&c=x%2By"


@pytest.mark.parametrize("token", [None, TOKEN], ids=["key", "token"])
@pytest.mark.parametrize("name", BACKENDS)
def test_calls_are_those_of_the_official_sdk(gateway, seen, name, token):
    seen.requests.clear()
    key = [KEY, SECRET, token]
    got = post(gateway, f"/{name}-{'token' if token else 'key'}/{PATH}", "hello, 世界".encode(), ("Authorization", "mine"), ("X-Acs-Action", "mine"))
    assert (got.status, got.code) == (200, None), got
    [ours] = seen.requests
    assert SECRET not in str(ours)
    assert ours[2]["authorization"] == signed_by_sdk(name, key, ours), "the SDK signs the same request in another way"
    if name == "fc3-http":
        return  # No SDK calls triggers: Function Compute documents how its library signs for them.
    same_call_of_sdk(name, key, seen.port, ours)
    theirs = seen.requests[1]
    assert ours[:2] == theirs[:2], "method and target"
    assert compared(ours[2]) == compared(theirs[2])
    assert same_body(name, ours[3], theirs[3]), (ours[3], theirs[3])
    assert theirs[2]["authorization"] == signed_by_sdk(name, key, theirs), "this test does not read the SDK's own request as the SDK does"


def test_a_signature_depends_on_what_is_signed(gateway, seen):
    """The comparison above would notice: another secret, another body, another path give other signatures."""
    for name in BACKENDS:
        seen.requests.clear()
        assert post(gateway, f"/{name}-key/{PATH}").status == 200
        [ours] = seen.requests
        signed = ours[2]["authorization"]
        assert signed_by_sdk(name, [KEY, "another", None], ours) != signed, name
        assert signed_by_sdk(name, [KEY, SECRET, None], (ours[0], f"/x{ours[1]}", *ours[2:])) != signed, name


def test_the_answer_of_a_bus_is_told(gateway, seen):
    for name in ("bus-data", "bus-control"):
        got = post(gateway, f"/{name}-key/1/x")
        assert json.loads(got.body) == {"eventId": "of-the-bus", "requestId": got.header("x-ca-request-id")}, name


NOT_TAKEN = {
    "partly": (200, {"FailedEntryCount": 1, "EntryList": [{"EventId": "e", "ErrorCode": "EventBusNotExist", "ErrorMessage": "no such bus"}]},
               "the bus refused it", "EventBusNotExist no such bus"),
    "partly-control": (200, {"Success": True, "Data": {"FailedEntryCount": 1, "EntryList": [{"ErrorCode": "InvalidEvent", "ErrorMessage": "no type"}]}},
                       "the bus refused it", "InvalidEvent no type"),
    "unsuccessful": (200, {"Success": False, "Code": "EventBusNotExist", "Message": "no such bus"}, "the bus refused it", "EventBusNotExist no such bus"),
    "signature": (403, {"Code": "SignatureDoesNotMatch"}, "the gateway may not put events on the bus", "SignatureDoesNotMatch"),
    "throttled": (429, {"Code": "Throttling"}, "the bus is busy", "Throttling"),
    "failed": (500, {"Code": "InternalError"}, "the bus failed", "InternalError"),
}


@pytest.mark.parametrize("name", ["bus-data", "bus-control"])
@pytest.mark.parametrize("what", NOT_TAKEN)
def test_an_event_that_is_not_taken_is_told_with_its_reason(gateway, seen, name, what):
    status, body, reason, said = NOT_TAKEN[what]
    seen.requests.clear()
    seen.answer = answer(status, json.dumps(body).encode())
    try:
        got = post(gateway, f"/{name}-key/1/x")
    finally:
        seen.answer = answer(200, ANSWER)
    assert (got.status, got.code) == (502, "D502EV"), got
    assert reason in got.header("x-ca-error-message")
    assert said not in str(got.headers), "the bus's words are for the log"
    assert upstreams.until(lambda: said in gateway.text())
    assert len(seen.requests) == (3 if what == "throttled" else 1)
    assert len({headers["x-acs-signature-nonce"] for _, _, headers, _ in seen.requests}) == len(seen.requests)
    assert len({event_of(name, body)["id"] for *_, body in seen.requests}) == 1


# === Access keys ===

KINDS = ["fc2-event", "fc3-http", "bus-data", "bus-control"]
CERTIFICATE = {"tls.crt": "a certificate", "tls.key": "its key"}
BAD_SECRETS = {
    "missing": (None, "there is no Secret default/bad"),
    "of-another-type": (paifang.secret("bad", kind_of="kubernetes.io/tls", **CERTIFICATE), "Secret default/bad has nothing under `accessKeyId`"),
    "without-id": (paifang.secret("bad", accessKeySecret=SECRET), "Secret default/bad has nothing under `accessKeyId`"),
    "without-secret": (paifang.secret("bad", accessKeyId=KEY), "Secret default/bad has nothing under `accessKeySecret`"),
    "empty": (access_key("bad", key=""), "Secret default/bad has nothing under `accessKeyId`"),
    "two-lines": (access_key("bad", secret="one\ntwo"), "`accessKeySecret` of Secret default/bad has"),
}


@pytest.mark.parametrize("what", BAD_SECRETS)
def test_without_its_access_key_nothing_is_called(start, folder, seen, what):
    """And the refusal says which Secret, and which of its keys; once it is there, calls go through."""
    secret, said = BAD_SECRETS[what]
    folder.write("all.yaml", *paifang.group("g", HOST), *(o for name in KINDS for o in served(name, seen.port, "bad")))
    if secret:
        folder.write("secret.yaml", secret)
    gateway = start(folder)
    seen.requests.clear()
    for name in KINDS:
        got = post(gateway, f"/{name}/1/x")
        assert (got.status, got.code, got.body) == (500, "X500AM", b""), (name, got)
        assert "Secret" not in got.header("x-ca-error-message"), "names of Secrets are not for callers"
    assert upstreams.until(lambda: gateway.text().count(said) >= len(KINDS)), gateway.text()[-3000:]
    assert not seen.requests
    folder.write("secret.yaml", access_key("bad"))
    for name in KINDS:
        assert upstreams.until(lambda: post(gateway, f"/{name}/1/x").status == 200), name


def test_a_secret_that_loses_a_key_changes_nothing(start, folder, seen):
    folder.write("all.yaml", *paifang.group("g", HOST), *served("fc2-event", seen.port, "key"))
    folder.write("secret.yaml", access_key("key"))
    gateway = start(folder)
    assert post(gateway, "/fc2-event/x").status == 200
    folder.write("secret.yaml", paifang.secret("key", accessKeyId=KEY))
    assert upstreams.until(lambda: "nothing under `accessKeySecret`; the last good one goes on" in gateway.text()), gateway.text()[-3000:]
    seen.requests.clear()
    assert post(gateway, "/fc2-event/x").status == 200
    assert signed_by_sdk("fc2-event", [KEY, SECRET, None], seen.requests[0]) == seen.requests[0][2]["authorization"]


class Calling(threading.Thread):
    """Calls one after the other until told to end. Keeps what came back."""

    def __init__(self, gateway, path):
        super().__init__(daemon=True)
        self.gateway, self.path, self.answers, self.ends = gateway, path, [], threading.Event()

    def run(self):
        while not self.ends.is_set() and len(self.answers) < 100_000:
            got = post(self.gateway, self.path)
            self.answers.append((got.status, got.code))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.join(30)


def key_of(request):
    return re.search(r"AKID\d+TEST", request[2]["authorization"])[0]


@pytest.mark.parametrize("name", KINDS)
def test_a_changed_access_key_is_used_from_the_next_call_on(start, folder, name):
    """Both keys are valid at the service for a while, as whoever changes one has it; nothing fails in between, and none goes back."""
    seen = upstreams.Seen(answer(200, ANSWER))
    folder.write("all.yaml", *paifang.group("g", HOST), *served(name, seen.port, "key"))
    folder.write("secret.yaml", access_key("key"))
    gateway = start(folder)
    with Calling(gateway, f"/{name}/1/x") as calling:
        assert upstreams.until(lambda: len(calling.answers) > 20)
        folder.write("secret.yaml", access_key("key", "AKID0001TEST", "SECRET0001TEST", securityToken=TOKEN))
        assert upstreams.until(lambda: seen.requests and key_of(seen.requests[-1]) == "AKID0001TEST")
        since = len(calling.answers)
        assert upstreams.until(lambda: len(calling.answers) > since + 20)
    assert set(calling.answers) == {(200, None)}
    keys = [key_of(request) for request in seen.requests]
    turn = keys.index("AKID0001TEST")
    assert set(keys[:turn]) == {KEY} and set(keys[turn:]) == {"AKID0001TEST"}
    before, after = seen.requests[turn - 1], seen.requests[turn]
    assert before[2]["authorization"] == signed_by_sdk(name, [KEY, SECRET, None], before)
    assert after[2]["authorization"] == signed_by_sdk(name, ["AKID0001TEST", "SECRET0001TEST", TOKEN], after)
    assert TOKEN in after[2].values() and TOKEN not in before[2].values()
    assert all(secret not in gateway.text() for secret in (SECRET, "SECRET0001TEST", TOKEN))
    seen.close()
