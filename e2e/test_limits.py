"""The documented limits and the documented errors beyond them."""

import pytest

import paifang
import wire

HOST = "limits.localtest"
KIB = 1024


@pytest.fixture(scope="module")
def gateway(module_start, recorder):
    return module_start([
        *paifang.group("limits", HOST),
        paifang.api("all", "limits", "/*", {**paifang.http_backend(recorder.port), "path": "/*"}, method="ANY"),
        *paifang.group("narrow", "narrow.localtest", qpsLimit=5),
        paifang.api("narrow", "narrow", "/a", paifang.mock("a")),
    ])


def test_a_url_within_8_kib_is_served(gateway):
    assert wire.get(gateway.address("http"), "/" + "a" * (7 * KIB), HOST).status == 200


def test_a_url_beyond_8_kib_is_refused(gateway):
    answer = wire.get(gateway.address("http"), "/" + "a" * (9 * KIB), HOST)
    assert (answer.status, answer.code) == (413, "I413UL")


def test_headers_beyond_8_kib_are_refused(gateway):
    answer = wire.get(gateway.address("http"), "/a", HOST, [(f"X-{n}", "a" * 1000) for n in range(9)])
    assert answer.status in (413, 431) and answer.code


def test_an_endless_head_is_refused_before_it_is_collected(gateway):
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(f"GET /a HTTP/1.1\r\nHost: {HOST}\r\n".encode())
        try:
            for n in range(2000):
                connection.send(b"X-%d: %s\r\n" % (n, b"a" * 1000))
        except ConnectionError:
            pass
        answer = connection.answer()
    assert answer is None or answer.status in (400, 413, 431)


def test_a_body_of_8_mib_is_served(gateway):
    answer = wire.request(gateway.address("http"), "POST", "/a", HOST, body=b"a" * (8 * KIB * KIB))
    assert answer.status == 200


def test_a_body_announced_larger_is_refused_at_once(gateway, recorder):
    recorder.clear()
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(f"POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {8 * KIB * KIB + 1}\r\n\r\n".encode())
        answer = connection.answer()
    assert (answer.status, answer.code) == (413, "I413RL")
    assert recorder.received() == b""


def test_a_chunked_body_that_grows_larger_is_refused(gateway):
    with wire.Connection(gateway.address("http")) as connection:
        connection.send(f"POST /a HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        block = b"10000\r\n" + b"a" * 65536 + b"\r\n"
        try:
            for _ in range(9 * 16):
                connection.send(block)
        except ConnectionError:
            pass
        answer = connection.answer()
    assert answer is None or (answer.status, answer.code) == (413, "I413RL")


def test_a_group_beyond_its_rate_is_throttled_and_others_are_not(gateway):
    codes = [wire.get(gateway.address("http"), "/a", "narrow.localtest").code for _ in range(40)]
    assert None in codes and "T429GR" in codes, codes
    assert wire.get(gateway.address("http"), "/a", HOST).status == 200
