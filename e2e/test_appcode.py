"""curl with an AppCode, as the cloud product's quick start writes it."""

import subprocess

import pytest

import paifang

HOST = "code.localtest"
CODE, OTHER = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"


@pytest.fixture(scope="module")
def gateway(module_start):
    def secured(name, app_code, **more):
        return paifang.api(name, "code", f"/{name}", paifang.mock("in"), auth={"type": "App", "appCode": app_code}, **more)

    echo = paifang.free_port()
    return module_start([
        *paifang.group("code", HOST),
        secured("header", "Header"), secured("both", "HeaderAndQuery"), secured("disabled", "Disabled"),
        paifang.api("echo", "code", "/echo", paifang.http_backend(echo), auth={"type": "App", "appCode": "HeaderAndQuery"}),
        *paifang.group("filter", "filter.localtest", filterAppCodeForBackend=True),
        paifang.api("filtered", "filter", "/echo", paifang.http_backend(echo), auth={"type": "App", "appCode": "HeaderAndQuery"}),
        *paifang.app("known", code=CODE), *paifang.app("unauthorized", code=OTHER),
        paifang.authorization("known", "code", ["known"]), paifang.authorization("known-filter", "filter", ["known"]),
    ], echo_port=echo)


def curl(gateway, path, *options, host=HOST):
    """(status, error code, body)"""
    done = subprocess.run(["curl", "-sS", "-w", "\n%{http_code} %header{x-ca-error-code}", "-H", f"Host: {host}", *options,
                           f"http://127.0.0.1:{gateway.port('http')}{path}"], capture_output=True, text=True, timeout=30, check=True)
    body, _, last = done.stdout.rpartition("\n")
    status, _, code = last.partition(" ")
    return int(status), code, body


@pytest.mark.parametrize("path, options, expected", [
    ("/header", ["-H", f"Authorization:APPCODE {CODE}"], (200, "")),
    ("/header", ["-H", f"Authorization: APPCODE {CODE}"], (200, "")),
    ("/header", ["-H", f"authorization:  appcode {CODE}"], (200, "")),
    ("/both", ["-H", f"Authorization:APPCODE {CODE}"], (200, "")),
    (f"/both?AppCode={CODE}", [], (200, "")),
    (f"/both?a=1&AppCode={CODE}&b=2", [], (200, "")),
    (f"/header?AppCode={CODE}", [], (400, "A400AC")),
    ("/header", [], (400, "A400MA")),
    ("/header", ["-H", f"Authorization:APPCODE {OTHER}"], (403, "I403AA")),
    ("/header", ["-H", "Authorization: Basic dTpw"], (400, "A400MA")),
], ids=lambda v: v if isinstance(v, str) else None)
def test_an_appcode(gateway, path, options, expected):
    status, code, body = curl(gateway, path, *options)
    assert (status, code) == expected
    if status == 200:
        assert body == "in"


@pytest.mark.parametrize("code", ["no-such-code", CODE[:-1], CODE + "0", CODE.upper(), ""])
def test_a_code_that_is_not_known(gateway, code):
    status, found, _ = curl(gateway, "/header", "-H", f"Authorization: APPCODE {code}")
    assert status in (400, 401) and found in ("A400AC", "A401AC", "A400MA")


def test_an_api_that_allows_no_code(gateway):
    status, code, _ = curl(gateway, "/disabled", "-H", f"Authorization: APPCODE {CODE}")
    assert status in (400, 401) and code in ("A400MA", "A400AC", "A401AC")


def test_the_code_reaches_the_backend_only_where_the_group_lets_it(gateway):
    def seen(host):
        _, _, body = curl(gateway, f"/echo?x=1&AppCode={CODE}", host=host)
        _, _, with_header = curl(gateway, "/echo", "-H", f"Authorization: APPCODE {CODE}", host=host)
        return CODE in body, CODE in with_header

    assert seen(HOST) == (True, True)
    assert seen("filter.localtest") == (False, False)
    _, _, body = curl(gateway, f"/echo?x=1&AppCode={CODE}&y=2", host="filter.localtest")
    assert paifang.echo_of(body)["query"] == "x=1&y=2"


def test_secrets_are_not_in_the_log_nor_on_the_admin_port(gateway):
    import re
    import wire

    curl(gateway, "/header", "-H", f"Authorization: APPCODE {CODE}")
    curl(gateway, f"/both?AppCode={CODE}")
    text = gateway.text()
    for path in ("/", "/metrics", "/config", "/config_dump", "/debug/config"):
        text += wire.get(gateway.address("admin"), path, "localhost").body.decode("utf-8", "replace")
    assert not re.search(f"{CODE}|{OTHER}", text, re.I)
