"""Each type of backend against one that fails at each stage of the exchange.

A row of TYPES and a column of EXPECTED meet in one Api with a backend of its own. It is called once while the backend fails and once
when it is well again; then the caller's answer, what the backend saw, the access log and the metrics must agree with the table, which is
that of docs/backends/README.md. A new type adds a row to TYPES.
"""

import concurrent.futures
import json
import re
import ssl
import urllib.request

import h2.config
import h2.connection
import h2.events
import pytest

import faults
import paifang
import upstreams
import wire
from faults import STAGES

HOST = "faults.localtest"
NAME = "backend.internal"
# Nothing may take longer, whatever happens: the Api's timeout is at most 10 s.
LONGEST = 15

# === Types ===

OK = (200, b"ok")
FUNCTION = (200, b'{"statusCode":200,"body":"ok"}')
BUS = (200, b'{"FailedEntryCount":0,"EntryList":[{"EventId":"of-the-bus"}]}')


def at(port, scheme="http"):
    return f"{scheme}://127.0.0.1:{port}"


def alibaba(version, kind):
    more = {"service": "svc"} if version == "2.0" else {}
    return lambda port: {"functionCompute": {"alibaba": {"version": version, "region": "cn-hangzhou", "function": "fn", "endpoint": at(port), **more},
                                             "kind": kind, "credentialsRef": {"name": "key"}}}


def oss(dialect):
    return lambda port: {"oss": {"endpoint": at(port), "bucket": "examplebucket", "region": "cn-hangzhou", "dialect": dialect,
                                 "credentialsRef": {"name": "key"}}}


def bus(api):
    return lambda port: {"eventBridge": {"alibaba": {"region": "cn-hangzhou", "bus": "orders", "source": "my.app", "endpoint": at(port), "api": api},
                                         "credentialsRef": {"name": "key"}}}


GET, PUT = {"object": {"action": "GetObject", "key": "/o"}}, {"object": {"action": "PutObject", "key": "/o"}}
TLS = {"caSecretRef": {"name": "ca"}, "serverName": NAME}

# name: type, what is written, how its answer is treated, the answer of one that is well, and how the Api asks.
TYPES = {
    "http": ("HTTP", lambda port: {"http": {"address": at(port)}}, "stream", OK, {}),
    "https": ("HTTP", lambda port: {"http": {"address": at(port, "https"), "tls": TLS}}, "stream", OK, {}),
    "http2": ("HTTP", lambda port: {"http": {"address": at(port), "httpVersion": "HTTP2"}}, "stream", OK, {}),
    "http2-get": ("HTTP", lambda port: {"http": {"address": at(port), "httpVersion": "HTTP2"}}, "stream", OK, {"method": "GET"}),
    "https2": ("HTTP", lambda port: {"http": {"address": at(port, "https"), "httpVersion": "HTTP2", "tls": TLS}}, "stream", OK, {}),
    "vpc": ("VPC", lambda port: {"vpc": {"addresses": [f"127.0.0.1:{port}"]}}, "stream", OK, {}),
    "function-http": ("FunctionCompute", lambda port: {"functionCompute": {"url": at(port), "kind": "HTTP"}}, "stream", OK, {}),
    "function2-http": ("FunctionCompute", alibaba("2.0", "HTTP"), "stream", OK, {}),
    "function3-http": ("FunctionCompute", alibaba("3.0", "HTTP"), "stream", OK, {}),
    "function-event": ("FunctionCompute", lambda port: {"functionCompute": {"url": at(port), "kind": "Event"}}, "function", FUNCTION, {}),
    "function2-event": ("FunctionCompute", alibaba("2.0", "Event"), "function", FUNCTION, {}),
    "function3-event": ("FunctionCompute", alibaba("3.0", "Event"), "function", FUNCTION, {}),
    "oss-get": ("OSS", oss("OSS"), "stream", OK, {"method": "GET", "backend": GET}),
    "oss-put": ("OSS", oss("OSS"), "stream", OK, {"method": "PUT", "backend": PUT}),
    "s3-get": ("OSS", oss("S3"), "stream", OK, {"method": "GET", "backend": GET}),
    "s3-put": ("OSS", oss("S3"), "stream", OK, {"method": "PUT", "backend": PUT}),
    "sink-binary": ("EventBridge", lambda port: {"eventBridge": {"sink": at(port)}}, "sink", (202, b""), {}),
    "sink-structured": ("EventBridge", lambda port: {"eventBridge": {"sink": at(port), "mode": "Structured"}}, "sink", (202, b""), {}),
    "bus": ("EventBridge", bus("Data"), "bus", BUS, {}),
    "bus-control": ("EventBridge", bus("Control"), "bus", BUS, {}),
}

# === What is right ===

FINE, CUT = "fine", "cut"
LOST = ("N502RE",) * 4

# For each stage, what callers get: of what is streamed, of functions that are sent an event, of sinks, of buses.
EXPECTED = {
    "refuses": ("D504CO",) * 4,
    "accepts-nobody": ("D504CO",) * 4,
    # Whether a byte was sent is a matter of who is faster.
    "resets-when-accepted": ("D504CO N502RE",) * 4,
    "resets-in-handshake": ("D504CS",) * 4,
    "silent-in-handshake": ("D504CO",) * 4,
    "plain-in-handshake": ("D504CS",) * 4,
    "resets-after-head": LOST,
    "resets-in-request": LOST,
    "answers-early": (FINE,) * 4,
    "closes-unanswered": LOST,
    "resets-unanswered": LOST,
    "silent": ("D504TO",) * 4,
    "garbage": LOST,
    "other-version": LOST,
    "other-protocol": LOST,
    "head-closes": LOST,
    "head-resets": LOST,
    "head-stalls": ("D504TO",) * 4,
    "head-too-large": LOST,
    "lengths-differ": LOST,
    "length-and-chunks": LOST,
    # The head of a sink's answer says it all.
    "body-closes": (CUT, "D502FC", FINE, "D502EV"),
    "body-resets": (CUT, "D502FC", FINE, "D502EV"),
    "body-stalls": (CUT, "D504TO", FINE, "D504TO"),
    "unsized-resets": (CUT, "D502FC", FINE, "D502EV"),
    "chunks-end": (CUT, "D502FC", FINE, "D502EV"),
    "chunks-broken": (CUT, "D502FC", FINE, "D502EV"),
    "body-long": (FINE,) * 4,
    "too-large": (FINE, "D502FC", FINE, "D502EV"),
    "version-1.0": (FINE,) * 4,
    "version-1.0-resets": (CUT, "D502FC", FINE, "D502EV"),
    # TLS has not said that this is the end.
    "version-1.0-unfinished": (CUT, "D502FC", FINE, "D502EV"),
    # A body that was streamed is gone.
    "stream-refused": LOST,
    "stream-failed": LOST,
    "stream-failed-in-body": (CUT,) * 4,
    "leaves-before": LOST,
    "leaves-after": LOST,
    "ends-early": (CUT,) * 4,
}
FAMILIES = ("stream", "function", "sink", "bus")
# Where a type differs from its family.
BUT = {
    # It never comes to HTTP.
    ("https", "resets-when-accepted"): "D504CO D504CS",
    ("https2", "resets-when-accepted"): "D504CO D504CS",
    # The lengths are checked by HTTP/2 itself.
    **{(name, "body-long"): CUT for name in ("http2", "http2-get", "https2")},
    # Without a body it is at hand, and was not looked at.
    ("http2-get", "stream-refused"): "D504CO",
    ("http2-get", "leaves-before"): "D504CO",
}


def expected(name, stage):
    return BUT.get((name, stage)) or EXPECTED[stage][FAMILIES.index(TYPES[name][2])]


def is_tls(name):
    return name.startswith("https")


def is_event(name):
    return TYPES[name][2] in ("sink", "bus")


def is_two(name):
    return name.startswith(("http2", "https2"))


def exists(name, stage):
    """Whether a type can meet this stage."""
    fault, spec = STAGES[stage], TYPES[name][4]
    if (fault.handshake or fault.over_tls) and not is_tls(name):
        return False
    if fault.handshake:
        return True
    if fault.at_once or fault.full or not fault.listens:
        return True
    if fault.body > 5 and spec.get("method") == "GET":
        return False
    return (fault.two if is_two(name) else fault.one) is not None


ROWS = [(name, stage) for name in TYPES for stage in STAGES if exists(name, stage)]
ENDS = [(name, end) for name in TYPES for end in faults.KEPT]


def sent_again(name, stage):
    """How often a backend may see a request: an event may come again, as its receiver knows its id, and what it said it had not looked at."""
    not_looked_at = expected(name, stage) == "D504CO"
    lost_event = is_event(name) and expected(name, stage) not in (FINE, "D504TO", "D502EV")
    return 3 if lost_event or not_looked_at else 1


# === One run of all rows ===


class Row:
    """What came of one type at one stage."""

    def __init__(self, name, stage, tls=None, stages=STAGES):
        _, _, _, well, _ = TYPES[name]
        self.label = f"{name}--{stage}".replace(".", "-")
        self.name, self.stage = name, stages[stage]
        self.backend = faults.Scripted(self.stage, well, tls=tls[is_two(name)] if is_tls(name) else None, two=is_two(name))
        self.method = TYPES[name][4].get("method", "POST")
        self.body = b"b" * self.stage.body

    def objects(self):
        kind, config, _, _, spec = TYPES[self.name]
        service = paifang.kind(self.label, "BackendService", displayName=re.sub(r"\W", "_", self.label), type=kind,
                               stages={"RELEASE": config(self.backend.port)})
        backend = {"serviceRef": {"name": self.label}, "timeout": self.stage.timeout, **spec.get("backend", {})}
        return [service, paifang.api(self.label, "faults", f"/{self.label}", backend, method=self.method)]

    def run(self, address):
        with faults.Caller(address, timeout=LONGEST + 5) as caller:
            self.answer, self.cut, self.seconds = caller.call(self.method, f"/{self.label}", HOST, self.body)
        self.seen, self.connections = list(self.backend.requests), self.backend.connections
        self.backend.mend()
        with faults.Caller(address, timeout=LONGEST + 5) as caller:
            self.after, self.after_cut, _ = caller.call(self.method, f"/{self.label}", HOST, b"after")


class Kept(Row):
    """What came of two calls over one connection of the caller's, and so by one worker, when the backend's is not there any more."""

    def __init__(self, name, end, tls):
        super().__init__(name, end, tls, faults.KEPT)

    def run(self, address):
        with faults.Caller(address, timeout=LONGEST + 5) as caller:
            self.answer, *_ = caller.call(self.method, f"/{self.label}", HOST, self.body)
            if self.stage is not faults.KEPT["lost"]:
                upstreams.until(lambda: self.backend.ended)
                # What happened to a connection before a request came is seen before its answer is.
                assert caller.call("GET", "/mock", HOST)[0].body == b"mock"
            self.after, *_ = caller.call(self.method, f"/{self.label}", HOST, self.body)
        self.seen, self.connections = list(self.backend.requests), self.backend.connections


@pytest.fixture(scope="module")
def run(module_start, certificates, tmp_path_factory):
    """All rows, side by side, as most of their time is waiting."""
    log = tmp_path_factory.mktemp("log") / "access.log"
    tls = contexts(certificates)
    rows = {(name, stage): Row(name, stage, tls) for name, stage in ROWS}
    rows |= {(name, end): Kept(name, end, tls) for name, end in ENDS}
    gateway = module_start([
        *paifang.group("faults", HOST),
        paifang.secret("ca", **{"ca.crt": certificates.pem}),
        paifang.secret("key", accessKeyId="AKID0000TEST", accessKeySecret="SECRET0000TEST"),
        paifang.api("mock", "faults", "/mock", paifang.mock("mock")),
        *(found for row in rows.values() for found in row.objects()),
    ], extra=["--access-log", str(log), "--connect-timeout", "1s"])
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(row.run, gateway.address("http")) for row in rows.values()]:
            done.result()
    yield Run(gateway, rows, log)
    for row in rows.values():
        row.backend.close()


def contexts(certificates):
    """For backends over TLS, one for each protocol that they agree to."""
    files = certificates.files("faults", certificates.issue("backend", NAME))
    found = {}
    for is_second, protocol in ((False, "http/1.1"), (True, "h2")):
        found[is_second] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found[is_second].load_cert_chain(*files)
        found[is_second].set_alpn_protocols([protocol])
    return found


class Run:
    def __init__(self, gateway, rows, log):
        self.gateway, self.rows = gateway, rows
        wanted = {answer.header("x-ca-request-id") for row in rows.values() for answer in (row.answer, row.after) if answer}

        def read():
            # What is behind the last line's end is being written.
            lines = [json.loads(line) for line in log.read_text().split("\n")[:-1]]
            self.lines = {line["request_id"]: line for line in lines}
            return wanted <= self.lines.keys()

        upstreams.until(read, 10, 0.1)
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port('admin')}/metrics", timeout=10) as answer:
            self.metrics = answer.read().decode()

    def line(self, answer):
        return self.lines[answer.header("x-ca-request-id")]

    def counted(self, metric, row):
        """The values of a metric of this row's backend, by its own label."""
        found = {}
        for labels, value in re.findall(rf"^{metric}{{([^}}]*)}} (\S+)$", self.metrics, re.M):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            if labels["backend"] == f"default/{row.label}":
                assert (labels["stage"], labels["type"]) == ("RELEASE", TYPES[row.name][0])
                found[labels.get("code") or labels.get("class")] = float(value)
        return found


@pytest.mark.parametrize("name, stage", ROWS)
def test_a_fault_is_told_as_documented(run, name, stage):
    row, right = run.rows[name, stage], expected(name, stage)
    assert row.answer is not None, "no answer at all"
    told = (row.answer.status, row.answer.code, row.answer.header("x-ca-error-message"), row.answer.body[:100], row.cut)
    line = run.line(row.answer)
    if right == FINE:
        assert (row.answer.status, row.answer.code, row.cut) == (row.after.status, None, False), told
        assert row.answer.body.rstrip() == row.after.body or "eventId" in str(row.answer.body), told
    elif right == CUT:
        assert row.cut and row.answer.status == 200, told
        assert (line["cut"], line["cut_by"]) == (True, "backend"), line
    else:
        assert row.answer.code in right.split() and not row.cut, told
        assert row.answer.status == int(row.answer.code[1:4]), told
        assert line["error_code"] == row.answer.code, line
        assert str(row.backend.port) not in row.answer.header("x-ca-error-message"), "addresses are for the log"
    assert row.seconds < LONGEST, row.seconds


EVENT_ID = re.compile(rb'(?:^ce-id: |"specversion":"1.0","id":"|%22Id%22%3A%22)([0-9A-F-]+)', re.M)
NONCE = re.compile(rb"^x-acs-signature-nonce: (\S+)", re.M)
# Where a backend does not read all of a request, and so perhaps not which event it is.
READ_IN_PART = ("resets-after-head", "resets-in-request", "answers-early")


def check_same_event(seen, answer, whole=True):
    """One event each time, which is signed anew where it is signed."""
    ids = [EVENT_ID.findall(bytes(request)) for request in seen]
    assert all(found == [answer.header("x-ca-request-id").encode()] or not (found or whole) for found in ids), ids
    nonces = [nonce for request in seen for nonce in NONCE.findall(bytes(request))]
    assert len(set(nonces)) == len(nonces), nonces


@pytest.mark.parametrize("name, stage", ROWS)
def test_a_request_is_not_sent_twice(run, name, stage):
    row = run.rows[name, stage]
    assert len(row.seen) <= sent_again(name, stage), row.seen
    assert row.connections <= 3
    if is_event(name):
        check_same_event(row.seen, row.answer, stage not in READ_IN_PART)


@pytest.mark.parametrize("name, stage", ROWS)
def test_a_fault_is_seen_in_log_and_metrics(run, name, stage):
    row = run.rows[name, stage]
    lines = [run.line(row.answer), run.line(row.after)]
    assert {line["backend"] for line in lines} == {f"default/{row.label}"}
    assert run.counted("paifang_backend_attempts_total", row) == {None: sum(line["attempts"] for line in lines)}
    failed = {row.answer.code: 1} if row.answer.code else {}
    assert run.counted("paifang_backend_errors_total", row) == failed
    assert run.counted("paifang_backend_requests_total", row) == {"2xx": 2 - len(failed)}
    assert run.counted("paifang_backend_cut_total", row) == {None: row.cut}
    if row.answer.code:
        assert row.answer.code == "D504TO" or lines[0]["error_detail"], lines[0]


@pytest.mark.parametrize("name, stage", ROWS)
def test_a_backend_that_is_well_again_is_used(run, name, stage):
    row = run.rows[name, stage]
    told = (row.after.status, row.after.code, row.after.header("x-ca-error-message"))
    assert row.after.status == 200 and not row.after_cut, told
    if TYPES[name][2] == "bus":
        assert json.loads(row.after.body)["eventId"] == "of-the-bus"
    elif TYPES[name][2] == "sink":
        assert json.loads(row.after.body)["eventId"] == row.after.header("x-ca-request-id")
    else:
        assert row.after.body == b"ok"


# === Connections that are kept ===


@pytest.mark.parametrize("name, end", [row for row in ENDS if row[1] != "lost"])
def test_a_kept_connection_that_ends_before_a_request_is_replaced(run, name, end):
    row = run.rows[name, end]
    assert (row.answer.status, row.after.status) == (200, 200), (row.answer, row.after)
    assert (len(row.seen), row.connections) == (2, 2), row.seen
    assert run.counted("paifang_backend_requests_total", row) == {"2xx": 2}
    assert run.counted("paifang_backend_connections_total", row) == {None: 2}


@pytest.mark.parametrize("name", TYPES)
def test_a_request_that_was_lost_with_a_kept_connection_is_not_sent_twice(run, name):
    row = run.rows[name, "lost"]
    assert row.answer.status == 200
    if is_event(name):
        assert row.after.status == 200, row.after
        assert len(row.seen) == 3, row.seen
        check_same_event(row.seen[1:], row.after)
    else:
        assert (row.after.status, row.after.code) == (502, "N502RE"), row.after
        assert (len(row.seen), row.connections) == (2, 1), row.seen
        assert run.counted("paifang_backend_errors_total", row) == {"N502RE": 1}


# === Callers over HTTP/2 ===


def over_http2(gateway, certificates, path):
    """What comes of a GET over HTTP/2: the status, the body as far as it came, and how the stream ended."""
    tls = wire.trusting(certificates.path, alpn=["h2"])
    with wire.Connection(gateway.address("https"), tls=tls, server_name=HOST, timeout=LONGEST) as connection:
        peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        peer.initiate_connection()
        peer.send_headers(1, [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", path)], end_stream=True)
        connection.send(peer.data_to_send())
        status, body = None, b""
        while data := connection.socket.recv(65536):
            for event in peer.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[":status"]
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    return status, body, type(event)
    return status, body, None


@pytest.mark.parametrize("name, stage", [("http", "body-resets"), ("http", "body-stalls"), ("http", "chunks-end"), ("http", "chunks-broken"),
                                         ("http2-get", "body-closes"), ("http2-get", "stream-failed-in-body"), ("http2-get", "ends-early"),
                                         ("oss-get", "body-resets"), ("oss-get", "body-stalls")])
def test_an_answer_that_is_cut_is_reset_over_http2(start, folder, certificates, name, stage):
    pair, row = certificates.issue("faults", HOST), Row(name, stage)
    row.method = "GET"
    folder.write("all.yaml", *paifang.group("faults"), paifang.binding("faults", "faults", HOST, tls={"secretRef": {"name": "tls"}}),
                 paifang.secret("tls", "kubernetes.io/tls", **{"tls.crt": pair[0], "tls.key": pair[1]}),
                 paifang.secret("key", accessKeyId="AKID0000TEST", accessKeySecret="SECRET0000TEST"), *row.objects())
    gateway = start(folder)
    status, body, end = over_http2(gateway, certificates, f"/{row.label}")
    assert status in (None, "200") and len(body) <= 20 and end is h2.events.StreamReset, (status, body, end)
    row.backend.mend()
    assert over_http2(gateway, certificates, f"/{row.label}") == ("200", b"ok", h2.events.StreamEnded)
    row.backend.close()


# === Backends with two endpoints ===


@pytest.mark.parametrize("stage, most", [("refuses", 0), ("resets-unanswered", 1), ("garbage", 1)])
def test_another_endpoint_is_asked_when_nothing_was_sent_and_else_is_not(start, folder, stage, most):
    broken, well = (faults.Scripted(STAGES[stage], OK) for _ in range(2))
    if stage == "refuses":
        well.listen()
    well.mended = True
    addresses = [f"127.0.0.1:{one.port}" for one in (broken, well)]
    folder.write("all.yaml", *paifang.group("faults", HOST), paifang.api("a", "faults", "/a", {"vpc": {"addresses": addresses}}, method="POST"))
    gateway, calls = start(folder), 20
    answers = [wire.request(gateway.address("http"), "POST", "/a", HOST, body=b"hello") for _ in range(calls)]
    assert {(answer.status, answer.code) for answer in answers} <= {(200, None), *[(502, "N502RE")] * most}
    assert len(broken.requests) + len(well.requests) == calls, "each was seen once"
    assert sum(answer.status == 200 for answer in answers) == len(well.requests) > 0
    for one in (broken, well):
        one.close()
