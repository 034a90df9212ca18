"""Changing the folder while the gateway serves it: fast, and without a single failed request."""

import re
import statistics
import subprocess
import threading
import time

import pytest

import paifang
import wire

HOST = "reload.localtest"
CHANGES = 10
# The promise is 100 ms; a busy machine may take longer without the promise being broken.
DEADLINE = 2.0


def hello(body):
    return paifang.api("hello", "reload", "/hello", paifang.mock(body))


def served(gateway, path="/hello", host=HOST):
    return wire.get(gateway.address("http"), path, host)


def wait_served(gateway, body, seconds=DEADLINE, path="/hello"):
    started = time.monotonic()
    while (answer := served(gateway, path)).body != body.encode():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"{answer.status} {answer.body[:80]!r} instead of {body!r} after {seconds} s")
        time.sleep(0.001)
    return time.monotonic() - started


def test_a_saved_file_is_served_at_once(start, folder, capsys):
    folder.write("group.yaml", *paifang.group("reload", HOST))
    folder.write("hello.yaml", hello("0"))
    gateway = start(folder)
    times = []
    for number in range(1, 21):
        time.sleep(0.15)
        folder.write("hello.yaml", hello(str(number)))
        times.append(wait_served(gateway, str(number)))
    with capsys.disabled():
        print(f"\nsaved to served: median {statistics.median(times) * 1000:.1f} ms, longest {max(times) * 1000:.1f} ms")


# === Under load ===


def load(gateway, how, certificates, requests):
    """h2load's command line for one kind of connection."""
    scheme, listener = ("http", "http") if how == "http1" else ("https", "https")
    kind = ["-m", "8", "--npn-list=h2"] if how == "http2" else ["--h1"]
    return [paifang.tool("h2load"), *kind, "-n", str(requests), "-c", "16", "-t", "1",
            f"--connect-to=127.0.0.1:{gateway.port(listener)}", f"{scheme}://{HOST}/hello"]


def change_everything(folder, number, certificates):
    """One change of every kind that travels to the gateway."""
    folder.write("hello.yaml", hello(str(number)))
    folder.write("more.yaml", *(paifang.api(f"more-{n}", "reload", f"/more/{number}/{n}", paifang.mock("more")) for n in range(20)))
    pair = certificates.issue(f"swap-{number}", HOST)
    folder.write("secret.yaml", paifang.secret("reload-tls", "kubernetes.io/tls", **{"tls.crt": pair[0], "tls.key": pair[1]}))


@pytest.mark.parametrize("how, requests", [("http1", 150_000), ("tls", 150_000), ("http2", 300_000)])
def test_ten_changes_under_load_fail_no_request(start, folder, certificates, how, requests):
    folder.write("group.yaml", *paifang.group("reload"),
                 paifang.binding("reload-domain", "reload", HOST, tls={"secretRef": {"name": "reload-tls"}}))
    change_everything(folder, 0, certificates)
    gateway = start(folder)
    client = subprocess.Popen(load(gateway, how, certificates, requests), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        time.sleep(0.2)
        made = 0
        for number in range(1, CHANGES + 1):
            change_everything(folder, number, certificates)
            wait_served(gateway, str(number), 10)
            made += client.poll() is None
        output, _ = client.communicate(timeout=120)
    finally:
        client.kill()
        client.wait()
    assert client.returncode == 0, output
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    assert done, output
    assert tuple(map(int, done.groups())) == (requests, 0, 0, 0), output
    assert f"status codes: {requests} 2xx" in output, output
    assert made == CHANGES, f"the load ended after {made} changes: too short to show anything"


@pytest.mark.parametrize("how", ["http1", "tls"])
def test_every_answer_under_change_is_one_of_the_configurations(start, folder, certificates, how):
    """Own clients on kept connections: the body is always one that was configured, and they never go back."""
    folder.write("group.yaml", *paifang.group("reload"),
                 paifang.binding("reload-domain", "reload", HOST, tls={"secretRef": {"name": "reload-tls"}}))
    change_everything(folder, 0, certificates)
    gateway = start(folder)
    stop, problems, counts = threading.Event(), [], []

    def caller():
        options = dict(tls=wire.trusting(certificates.path), server_name=HOST) if how == "tls" else {}
        last, count = 0, 0
        try:
            with wire.Connection(gateway.address("https" if how == "tls" else "http"), **options) as connection:
                while not stop.is_set():
                    answer = connection.send(f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()).answer()
                    number = int(answer.body) if answer and answer.status == 200 else -1
                    if number < last:
                        problems.append((number, last, answer))
                        return
                    last, count = number, count + 1
        except Exception as error:
            problems.append(repr(error))
        counts.append(count)

    callers = [threading.Thread(target=caller) for _ in range(6)]
    for thread in callers:
        thread.start()
    for number in range(1, CHANGES + 1):
        change_everything(folder, number, certificates)
        wait_served(gateway, str(number), 10)
    stop.set()
    for thread in callers:
        thread.join(30)
    assert not problems, problems[:3]
    assert len(counts) == 6 and min(counts) > CHANGES


def test_a_request_in_flight_ends_on_what_it_began_with(start, folder):
    import upstreams

    def slow(connection, head, body):
        time.sleep(1)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")

    upstream = upstreams.answering(slow)
    folder.write("all.yaml", *paifang.group("reload", HOST), hello("0"), paifang.api("slow", "reload", "/slow", paifang.http_backend(upstream.port)))
    gateway = start(folder)
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(f"GET /slow HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        time.sleep(0.2)
        folder.write("all.yaml", *paifang.group("reload", HOST), hello("1"))
        wait_served(gateway, "1")
        assert served(gateway, "/slow").status == 404
        assert connection.answer().body == b"old"
    upstream.close()


# === Mistakes ===

BROKEN = {
    "no-yaml": "apiVersion: paifang.dev/v1alpha1\nkind: Api\nmetadata: {name: hello\n",
    "unknown-field": "apiVersion: paifang.dev/v1alpha1\nkind: Api\nmetadata: {name: hello}\nspec:\n  groupRef: {name: reload}\n  zzz: 1\n",
    "wrong-type": "apiVersion: paifang.dev/v1alpha1\nkind: Api\nmetadata: {name: hello}\nspec:\n  groupRef: reload\n",
    "half-written": "apiVersion: paifang.dev/v1alpha1\nkind: Api\nmetadata: {name: hello}\nspec:\n  groupRef: {name: reload}\n  request:\n    pa",
    "empty": "",
    "binary": "\x00\x01\x02",
}


@pytest.mark.parametrize("name", [n for n in BROKEN if n != "empty"])
def test_a_broken_file_changes_nothing_and_is_reported(start, folder, name):
    folder.write("group.yaml", *paifang.group("reload", HOST))
    folder.write("hello.yaml", hello("good"))
    folder.write("other.yaml", paifang.api("other", "reload", "/other", paifang.mock("0")))
    gateway = start(folder)
    assert served(gateway).body == b"good"
    folder.write_text("hello.yaml", BROKEN[name])
    # Another change still arrives: by then the broken one has been read too.
    folder.write("other.yaml", paifang.api("other", "reload", "/other", paifang.mock("1")))
    wait_served(gateway, "1", path="/other")
    assert served(gateway).body == b"good"
    assert "hello.yaml" in gateway.text(), "the log does not name the file"
    folder.write("hello.yaml", hello("better"))
    wait_served(gateway, "better")


def bad_draft(body="bad"):
    """Valid YAML, valid fields, and a path parameter that nobody declared."""
    return paifang.api("hello", "reload", "/hello/[who]", paifang.mock(body), mode="Mapping")


def test_a_bad_edit_leaves_the_last_release_serving_also_after_a_restart(start, folder, tmp_path):
    folder.write("group.yaml", *paifang.group("reload", HOST))
    folder.write("hello.yaml", hello("good"))
    folder.write("other.yaml", paifang.api("other", "reload", "/other", paifang.mock("0")))
    gateway = start(folder)
    assert served(gateway).body == b"good"
    folder.write("hello.yaml", bad_draft())
    folder.write("other.yaml", paifang.api("other", "reload", "/other", paifang.mock("1")))
    wait_served(gateway, "1", path="/other")
    assert served(gateway).body == b"good"
    gateway.terminate()
    again = start(folder)
    assert served(again).body == b"good"
    assert served(again, "/other").body == b"1"
    again.kill()
    # Not even a kill in the middle of everything loses it.
    assert served(start(folder)).body == b"good"


def test_a_stage_can_stay_at_a_release(start, folder):
    def write(body, release=None):
        api = hello(body)
        api["spec"]["stages"] = {"TEST": {}, "RELEASE": {"release": release} if release else {}}
        folder.write("hello.yaml", api)

    def at(stage):
        return wire.get(gateway.address("http"), "/hello", HOST, [("X-Ca-Stage", stage)]).body.decode()

    folder.write("group.yaml", *paifang.group("reload", HOST))
    write("one")
    gateway = start(folder)
    assert (at("TEST"), at("RELEASE")) == ("one", "one")
    write("two", release=1)
    deadline = time.monotonic() + DEADLINE
    while at("TEST") != "two" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (at("TEST"), at("RELEASE")) == ("two", "one")
    write("two", release=2)
    wait_served(gateway, "two")
    write("two", release=1)
    wait_served(gateway, "one")


def test_a_removed_api_is_gone_and_others_stay(start, folder):
    folder.write("group.yaml", *paifang.group("reload", HOST))
    folder.write("hello.yaml", hello("here"))
    folder.write("other.yaml", paifang.api("other", "reload", "/other", paifang.mock("0")))
    gateway = start(folder)
    folder.remove("hello.yaml")
    deadline = time.monotonic() + DEADLINE
    while served(gateway).status != 404 and time.monotonic() < deadline:
        time.sleep(0.01)
    answer = served(gateway)
    assert (answer.status, answer.code) == (404, "I404NF")
    assert served(gateway, "/other").body == b"0"


def test_a_withdrawn_authorization_is_refused_at_once(start, folder):
    code = "0123456789abcdef0123456789abcdef"
    folder.write("all.yaml", *paifang.group("reload", HOST), *paifang.app("caller", code=code),
                 paifang.api("secured", "reload", "/secured", paifang.mock("in"), auth={"type": "App", "appCode": "Header"}))
    folder.write("grant.yaml", paifang.authorization("grant", "reload", ["caller"]))
    gateway = start(folder)

    def call():
        return wire.get(gateway.address("http"), "/secured", HOST, [("Authorization", f"APPCODE {code}")])

    assert call().body == b"in"
    folder.remove("grant.yaml")
    deadline = time.monotonic() + DEADLINE
    while call().status == 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    answer = call()
    assert (answer.status, answer.code) == (403, "I403AA")
