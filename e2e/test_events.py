"""Events against a sink that reads them with the official SDK and refuses what is invalid, and against Knative's event_display; functions against
functions-framework."""

import json
import pathlib
import socket
import subprocess
import sys
import urllib.parse

import pytest

import paifang
import upstreams
import wire

HOST = "remote.localtest"
REPO = pathlib.Path(__file__).resolve().parent.parent


def until_listening(port, process):
    def listens():
        assert process.poll() is None, "it ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    assert upstreams.until(listens, 60)


def running(log, port, *command):
    process = subprocess.Popen([str(part) for part in command], stdout=log.open("wb"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    until_listening(port, process)
    return process


class Sink:
    def __init__(self, home):
        self.port, self.log = paifang.free_port(), home / "sink.log"
        self.process = None
        self.start()

    def start(self):
        self.process = running(self.log, self.port, paifang.tool("paifang-sink"), "--listen", f"127.0.0.1:{self.port}")

    def stop(self):
        self.process.terminate()
        self.process.wait(20)

    def events(self):
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture(scope="module")
def sink(tmp_path_factory):
    sink = Sink(tmp_path_factory.mktemp("sink"))
    yield sink
    sink.stop()


class Display(paifang.Isolated):
    """Knative's event_display."""

    def __init__(self, home):
        super().__init__(home / "event_display.log", 8080, [paifang.tool("event_display")])

    def events(self):
        """What it printed: attributes by name, and `data`, of each event."""
        found = []
        for text in self.text().split("☁️  cloudevents.Event\n")[1:]:
            attributes, _, data = text.partition("Data,\n")
            pairs = (line.strip().split(": ", 1) for line in attributes.splitlines() if ": " in line)
            found.append(dict(pairs) | {"data": json.loads(data)})
        return found


@pytest.fixture(scope="module")
def display(tmp_path_factory):
    display = Display(tmp_path_factory.mktemp("display"))
    yield display
    display.stop()


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    home, found = tmp_path_factory.mktemp("functions"), {}
    program = pathlib.Path(sys.executable).parent / "functions-framework"
    for target in ("hello", "forecast"):
        port = paifang.free_port()
        found[target] = port, running(home / f"{target}.log", port, program, "--source", REPO / "config/06-functions/main.py",
                                      "--target", target, "--host", "127.0.0.1", "--port", port)
    yield {target: port for target, (port, _) in found.items()}
    for _, process in found.values():
        process.terminate()
        process.wait(20)


def service(name, kind, config):
    return paifang.kind(name, "BackendService", displayName=f"service_{name}".replace("-", "_"), type=kind, stages={"RELEASE": config})


def remote(name, path, to, method="POST", **backend):
    parameters = [{"name": part.strip("[]"), "in": "Path", "type": "String", "required": True} for part in path.split("/") if part.startswith("[")]
    return paifang.api(name, "g", path, {"serviceRef": {"name": to}, "timeout": "3s", **backend}, method=method, parameters=parameters)


@pytest.fixture(scope="module")
def gateway(module_start, sink, display, functions):
    event = {"type": "com.example.order", "subject": "orders/[id]"}
    return module_start([
        *paifang.group("g", HOST),
        service("binary", "EventBridge", {"eventBridge": {"sink": f"http://127.0.0.1:{sink.port}/demo/default", "source": "/shop"}}),
        service("structured", "EventBridge", {"eventBridge": {"sink": f"http://127.0.0.1:{sink.port}", "source": "/shop", "mode": "Structured"}}),
        remote("binary", "/binary/[id]", "binary", event=event),
        remote("structured", "/structured/[id]", "structured", event=event),
        remote("plain", "/plain", "binary"),
        service("knative-binary", "EventBridge", {"eventBridge": {"sink": f"http://127.0.0.1:{display.port}/demo/default", "source": "/shop"}}),
        service("knative-structured", "EventBridge", {"eventBridge": {"sink": f"http://127.0.0.1:{display.port}", "source": "/shop", "mode": "Structured"}}),
        remote("knative-binary", "/knative-binary/[id]", "knative-binary", event=event),
        remote("knative-structured", "/knative-structured/[id]", "knative-structured", event=event),
        service("hello", "FunctionCompute", {"functionCompute": {"url": f"http://127.0.0.1:{functions['hello']}/fn", "kind": "HTTP"}}),
        service("forecast", "FunctionCompute", {"functionCompute": {"url": f"http://127.0.0.1:{functions['forecast']}", "kind": "Event"}}),
        remote("hello", "/hello", "hello"),
        remote("hello-own", "/hello-own", "hello", function={"onlyBusinessPath": True}),
        remote("forecast", "/forecast/[city]", "forecast"),
        remote("not-a-function", "/not-a-function", "hello", object={"action": "PostObject", "key": "/x"}),
    ])


def post(gateway, path, body=b"", *headers):
    return wire.request(gateway.address("http"), "POST", path, HOST, headers=headers, body=body)


# --- events


@pytest.mark.parametrize("mode", ["binary", "structured"])
@pytest.mark.parametrize("written, meant", [("7", "7"), ("%E8%AE%A2%E5%8D%95", "订单"), ("a%20b%25%22c", 'a b%"c'), ("~!$&'()*,;=:@", "~!$&'()*,;=:@")])
def test_the_official_sdk_reads_what_was_meant(gateway, sink, mode, written, meant):
    before = len(sink.events())
    body = json.dumps({"city": "杭州"}).encode()
    answer = post(gateway, f"/{mode}/{written}?a=1", body, ("Content-Type", "application/json"), ("X-Mine", "1"), ("Ce-Type", "forged"), ("Ce-Forged", "x"))
    assert answer.status == 200, answer
    told = json.loads(answer.body)
    assert told == {"eventId": answer.header("x-ca-request-id"), "requestId": answer.header("x-ca-request-id")}
    assert upstreams.until(lambda: len(sink.events()) > before)
    event = sink.events()[-1]
    assert event["id"] == told["eventId"]
    # The Go SDK leaves attributes of binary events as they are in the headers, encoded as the HTTP binding (§3.1.3.2) says.
    subject = urllib.parse.unquote(event["subject"]) if mode == "binary" else event["subject"]
    assert (event["source"], event["type"], subject) == ("/shop", "com.example.order", f"orders/{meant}")
    assert "forged" not in event
    data = event["data"]
    assert (data["path"], data["httpMethod"], data["queryString"]) == (f"/{mode}/{written}", "POST", "a=1")
    assert json.loads(data["body"]) == {"city": "杭州"}
    assert data["headers"]["x-mine"] == "1"


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_knative_displays_the_event(gateway, display, mode):
    before = len(display.events())
    answer = post(gateway, f"/knative-{mode}/7?a=1", "杭州".encode(), ("Content-Type", "text/plain; charset=utf-8"))
    assert answer.status == 200, answer
    assert upstreams.until(lambda: len(display.events()) > before), display.text()
    event = display.events()[-1]
    # It would print what is wrong under `Validation`.
    expected = {"Validation": None, "specversion": "1.0", "type": "com.example.order", "source": "/shop", "subject": "orders/7",
                "id": json.loads(answer.body)["eventId"], "datacontenttype": "application/json"}
    assert {name: event.get(name) for name in expected} == expected
    data = event["data"]
    assert (data["path"], data["httpMethod"], data["queryString"], data["body"]) == (f"/knative-{mode}/7", "POST", "a=1", "杭州")


def test_bytes_that_are_no_text_arrive_in_base64(gateway, sink):
    before = len(sink.events())
    assert post(gateway, "/plain", b"\x00\xff", ("Content-Type", "application/octet-stream")).status == 200
    assert upstreams.until(lambda: len(sink.events()) > before)
    event = sink.events()[-1]
    assert (event["type"], "subject" in event) == ("dev.paifang.api.called", False)
    assert (event["data"]["body"], event["data"]["isBase64Encoded"]) == ("AP8=", True)


def test_a_sink_that_is_not_there_is_told_and_one_that_comes_back_is_used(gateway, sink):
    assert post(gateway, "/plain").status == 200
    sink.stop()
    try:
        answer = post(gateway, "/plain")
        assert (answer.status, answer.code) == (504, "D504CO"), answer
    finally:
        sink.start()
    assert post(gateway, "/plain").status == 200


# --- functions


def test_an_http_function_gets_the_request(gateway):
    answer = post(gateway, "/hello", b"{}", ("Content-Type", "application/json"))
    assert (answer.status, json.loads(answer.body)) == (200, {"hello": "FunctionCompute", "method": "POST", "path": "/fn/hello"})
    answer = post(gateway, "/hello-own")
    assert json.loads(answer.body)["path"] == "/hello-own"


def test_an_event_function_gets_the_event(gateway):
    answer = post(gateway, "/forecast/%E6%9D%AD%E5%B7%9E?days=3", "天气".encode(), ("Content-Type", "text/plain; charset=utf-8"))
    assert answer.status == 200, answer
    assert answer.header("content-type").startswith("application/json")
    assert json.loads(answer.body) == {"city": "杭州", "days": "3", "method": "POST", "body": "天气"}


def test_an_answer_that_is_none_is_the_functions_fault(gateway):
    answer = post(gateway, "/forecast/x?answer=nonsense")
    assert (answer.status, answer.code) == (502, "D502FC"), answer
    assert "it is no JSON object" in answer.header("x-ca-error-message")


def test_an_api_that_speaks_of_objects_to_a_function_is_not_served(gateway):
    assert post(gateway, "/not-a-function").status == 404
    assert "the backend is no object store" in gateway.text()
