"""Functions as Knative serves them: behind its own queue-proxy, which queues, times out and says no. What schedules and wakes functions up needs a cluster
with Knative, and is not here."""

import concurrent.futures
import json
import pathlib
import sys

import pytest

import paifang
import upstreams
import wire

HOST = "functions.localtest"
# Knative lets so many calls wait for each that a function takes at a time.
WAITING = 10


class Served(paifang.Isolated):
    """A function behind queue-proxy, one call at a time."""

    def __init__(self, home, timeout):
        self.gate = home / "gate"
        function = [pathlib.Path(sys.executable).parent / "functions-framework", "--source", paifang.REPO / "e2e/queue/function.py",
                    "--target", "function", "--host", "127.0.0.1", "--port", "9000"]
        of = {"SERVING_NAMESPACE": "default", "SERVING_CONFIGURATION": "f", "SERVING_REVISION": "f-1", "SERVING_POD": "f-1-a", "SERVING_POD_IP": "127.0.0.1",
              "SERVING_LOGGING_CONFIG": "", "SERVING_LOGGING_LEVEL": "info", "CONTAINER_CONCURRENCY": "1", "USER_PORT": "9000",
              "QUEUE_SERVING_PORT": "8012", "QUEUE_SERVING_TLS_PORT": "8112", "REVISION_TIMEOUT_SECONDS": str(timeout), "GATE": str(self.gate)}
        super().__init__(home / "served.log", 8012, function, [paifang.tool("queue-proxy")], environment=of)
        answers = lambda: wire.get(("127.0.0.1", self.port), "/", "f").status == 200
        assert upstreams.until(answers, 60), self.text()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    served = Served(tmp_path_factory.mktemp("served"), 60)
    yield served
    served.stop()


def apis(served):
    def of(name, kind, path):
        url = f"http://127.0.0.1:{served.port}{path}"
        config = {"functionCompute": {"url": url, "kind": kind}}
        return [
            paifang.kind(name, "BackendService", displayName=f"service_{name}", type="FunctionCompute", stages={"RELEASE": config}),
            paifang.api(name, "g", f"/{name}/*", {"serviceRef": {"name": name}, "timeout": "30s"}, method="POST"),
        ]

    return [*paifang.group("g", HOST), *of("http", "HTTP", "/fn"), *of("event", "Event", "/event")]


@pytest.fixture(scope="module")
def gateway(module_start, served):
    return module_start(apis(served))


def post(gateway, path, body="你好"):
    return wire.request(gateway.address("http"), "POST", path, HOST, headers=[("Content-Type", "text/plain; charset=utf-8")], body=body.encode(), timeout=40)


def test_an_http_function_of_knative_gets_the_request(gateway, served):
    answer = post(gateway, "/http/a%20b?x=1")
    assert answer.status == 200, answer
    told = json.loads(answer.body)
    assert (told["path"], told["method"], told["body"]) == ("/fn/http/a b?x=1", "POST", "你好")
    assert told["host"] == f"127.0.0.1:{served.port}", "what Knative's ingress finds a function by"
    assert "for=127.0.0.1" in told["forwarded"], "queue-proxy writes it from the gateway's X-Forwarded-For"


def test_an_event_function_of_knative_gets_the_event(gateway):
    answer = post(gateway, "/event/a%20b")
    assert (answer.status, answer.header("x-mine")) == (201, "1"), answer
    told = json.loads(answer.body)
    assert (told["path"], told["method"], told["body"]) == ("/event/a%20b", "POST", "你好")


def test_calls_wait_for_a_function_and_are_told_when_too_many_do(gateway, served):
    served.gate.unlink(missing_ok=True)
    with concurrent.futures.ThreadPoolExecutor(WAITING + 2) as pool:
        calls = [pool.submit(post, gateway, f"/event/{n}?wait") for n in range(WAITING + 2)]
        try:
            [refused], _ = concurrent.futures.wait(calls, 20, concurrent.futures.FIRST_COMPLETED)
        finally:
            served.gate.touch()
        answers = [call.result() for call in calls]
    told = refused.result()
    assert (told.status, told.code) == (502, "D502FC"), told
    assert "the function is busy" in told.header("x-ca-error-message")
    assert upstreams.until(lambda: "pending request queue full" in gateway.text()), "queue-proxy's words are in the log"
    assert sorted(answer.status for answer in answers) == [201] * (WAITING + 1) + [502]


def test_a_function_that_knative_gives_up_is_told(start, folder, tmp_path):
    served = Served(tmp_path, 1)
    try:
        folder.write("all.yaml", *apis(served))
        gateway = start(folder)
        answer = post(gateway, "/event/x?wait")
        assert (answer.status, answer.code) == (502, "D502FC"), answer
        assert "the function failed" in answer.header("x-ca-error-message")
        assert upstreams.until(lambda: "504 Gateway Timeout" in gateway.text())
        served.gate.touch()
        assert post(gateway, "/event/x").status == 201
    finally:
        served.stop()
