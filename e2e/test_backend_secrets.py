"""Secrets that backends need and that are missing or wrong, for each type and each place where one is named."""

import json

import pytest

import paifang
import upstreams
import wire

HOST = "secrets.localtest"
ADDRESS = "127.0.0.1"


@pytest.fixture(scope="module")
def upstream():
    """Takes whatever comes for well asked; functions and buses answer the same."""
    body = b'{"statusCode":200,"body":"ok"}'
    upstream = upstreams.answering(lambda connection, head, _: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body))
    yield upstream
    upstream.close()


def access(secret, port):
    """Backends with an access key, and the Api's method."""
    at, key = f"http://{ADDRESS}:{port}", {"credentialsRef": {"name": secret}}
    function = {"region": "cn-hangzhou", "function": "fn", "endpoint": at}
    bus = {"region": "cn-hangzhou", "bus": "b", "source": "s", "endpoint": at}
    return {
        "oss": ({"oss": {"endpoint": at, "bucket": "examplebucket", "region": "cn-hangzhou", **key}, "object": {"action": "GetObject", "key": "/o"}}, "GET"),
        "functionCompute": ({"functionCompute": {"alibaba": function, "kind": "HTTP", **key}}, "POST"),
        "functionCompute2": ({"functionCompute": {"alibaba": {**function, "version": "2.0", "service": "svc"}, "kind": "Event", **key}}, "POST"),
        "eventBridge": ({"eventBridge": {"alibaba": bus, **key}}, "POST"),
        "eventBridge2": ({"eventBridge": {"alibaba": {**bus, "api": "Control"}, **key}}, "POST"),
    }


def over_tls(port, **tls):
    """The same over TLS."""
    at = f"https://{ADDRESS}:{port}"
    return {
        "http": ({"http": {"address": at, "tls": tls}}, "POST"),
        "vpc": ({"vpc": {"addresses": [f"{ADDRESS}:{port}"], "scheme": "HTTPS", "tls": tls}}, "POST"),
        "functionCompute": ({"functionCompute": {"url": at, "kind": "Event", "tls": tls}}, "POST"),
        "eventBridge": ({"eventBridge": {"sink": at, "tls": tls}}, "POST"),
        "oss": ({"oss": {"endpoint": at, "bucket": "examplebucket", "region": "r", "tls": tls, "credentialsRef": {"name": "good"}},
                 "object": {"action": "GetObject", "key": "/o"}}, "GET"),
    }


TYPES = {"http": "HTTP", "vpc": "VPC", "functionCompute": "FunctionCompute", "oss": "OSS", "eventBridge": "EventBridge"}


def objects(fault, backends):
    """For each of these backends a BackendService, and an Api that goes there."""
    found = []
    for kind, (backend, method) in backends.items():
        key, name = next(iter(backend)), f"{fault}-{kind}".lower()
        found.append(paifang.kind(name, "BackendService", displayName=name.replace("-", "_"), type=TYPES[key], stages={"RELEASE": {key: backend[key]}}))
        rest = {part: backend[part] for part in backend if part != key}
        found.append(paifang.api(name, "secrets", f"/{fault}/{kind}", {"serviceRef": {"name": name}, **rest}, method=method))
    return found


CONTENT = "CONTENT-THAT-NOBODY-MAY-READ"
KEYS, PAIRS, CAS = "credentialsRef", "tls.clientCertificateRef", "tls.caSecretRef"

# The field, the Secret's content (`None`: there is no such Secret), and what is said of it.
FAULTS = {
    "no-key": (KEYS, None, "there is no Secret default/{}"),
    "other-key": (KEYS, {"tls.crt": CONTENT, "tls.key": CONTENT}, "Secret default/{} has nothing under `accessKeyId`"),
    "half-key": (KEYS, {"accessKeyId": CONTENT}, "Secret default/{} has nothing under `accessKeySecret`"),
    "blank-key": (KEYS, {"accessKeyId": "AKID", "accessKeySecret": "\n"}, "Secret default/{} has nothing under `accessKeySecret`"),
    "odd-key": (KEYS, {"accessKeyId": "AKID", "accessKeySecret": f"{CONTENT}\r\nX-Forged: 1"}, "`accessKeySecret` of Secret default/{} has more than"),
    "odd-token": (KEYS, {"accessKeyId": "AKID", "accessKeySecret": "S", "securityToken": f"{CONTENT} 杭"}, "`securityToken` of Secret default/{} has more than"),
    "no-ca": (CAS, None, "there is no Secret default/{}"),
    "other-ca": (CAS, {"accessKeyId": CONTENT, "accessKeySecret": CONTENT}, "Secret default/{} has nothing under `ca.crt`"),
    "no-pem-ca": (CAS, {"ca.crt": CONTENT}, "Secret default/{}: ca.crt holds no certificate"),
    "no-pair": (PAIRS, None, "there is no Secret default/{}"),
    "other-pair": (PAIRS, {"ca.crt": CONTENT}, "Secret default/{} has nothing under `tls.crt`"),
    "half-pair": (PAIRS, {"tls.crt": CONTENT}, "Secret default/{} has nothing under `tls.key`"),
    "no-pem-pair": (PAIRS, {"tls.crt": CONTENT, "tls.key": CONTENT}, "Secret default/{}: tls.crt holds no certificate"),
    # Filled in by the fixture: a certificate with the key of another.
    "mixed-pair": (PAIRS, {}, "Secret default/{}: "),
}


def backends(fault, port):
    field = FAULTS[fault][0]
    if field == KEYS:
        return access(fault, port)
    return over_tls(port, **{field.removeprefix("tls."): {"name": fault}})


ROWS = [(fault, kind) for fault in FAULTS for kind in backends(fault, 1)]


def call(gateway, fault, kind):
    method = backends(fault, 1)[kind][1] if fault in FAULTS else access("good", 1)[kind][1]
    return wire.request(gateway.address("http"), method, f"/{fault}/{kind}", HOST)


@pytest.fixture(scope="module")
def refused(module_start, upstream, certificates, tmp_path_factory):
    (chain, _), (_, key) = certificates.issue("one", client=True), certificates.issue("other", client=True)
    contents = {**{fault: content for fault, (_, content, _) in FAULTS.items()}, "mixed-pair": {"tls.crt": chain, "tls.key": key}}
    log = tmp_path_factory.mktemp("log") / "access.log"
    gateway = module_start([
        *paifang.group("secrets", HOST),
        paifang.secret("good", accessKeyId="AKID0000TEST", accessKeySecret="SECRET0000TEST"),
        *(paifang.secret(fault, "kubernetes.io/tls" if fault == "other-key" else None, **content) for fault, content in contents.items() if content),
        *(found for fault in FAULTS for found in objects(fault, backends(fault, upstream.port))),
        *objects("good", access("good", upstream.port)),
    ], extra=["--access-log", str(log)])
    before = upstream.connections
    answers = {row: call(gateway, *row) for row in ROWS}
    assert upstream.connections == before, "nothing is asked unsigned or unverified"

    def lines():
        found = {line["request_id"]: line for line in map(json.loads, log.read_text().split("\n")[:-1])}
        return found if len(found) >= len(ROWS) else None

    return gateway, answers, upstreams.until(lines)


@pytest.mark.parametrize("kind", access("good", 1))
def test_the_same_with_a_good_secret_is_served(refused, kind):
    answer = call(refused[0], "good", kind)
    assert answer.status == 200, answer


@pytest.mark.parametrize("fault, kind", ROWS)
def test_a_secret_that_is_wrong_is_named(refused, fault, kind):
    gateway, answers, lines = refused
    field, _, said = FAULTS[fault]
    answer, said = answers[fault, kind], said.format(fault)
    assert (answer.status, answer.code) == (500, "X500AM"), answer
    assert fault not in str(answer.headers), "names of Secrets are for the log"
    told = f"BackendService default/{fault}-{kind.lower()}: spec.stages.RELEASE.{kind.rstrip('2')}.{field}: {said}"
    assert told in gateway.text(), [line for line in gateway.text().splitlines() if fault in line]
    line = lines[answer.header("x-ca-request-id")]
    assert said in line["error_detail"]
    assert CONTENT not in gateway.text() + str(lines)


def test_a_secret_that_becomes_wrong_is_told_and_the_last_good_goes_on(start, folder, upstream):
    folder.write("all.yaml", *paifang.group("secrets", HOST), *objects("good", access("good", upstream.port)))
    gateway = start(folder)
    for kind in access("good", 1):
        assert call(gateway, "good", kind).code == "X500AM"
    folder.write("secret.yaml", paifang.secret("good", accessKeyId="AKID0000TEST", accessKeySecret="SECRET0000TEST"))
    for kind in access("good", 1):
        assert upstreams.until(lambda: call(gateway, "good", kind).status == 200), gateway.text()[-2000:]
    folder.write("secret.yaml", paifang.secret("good", accessKeyId="AKID0000TEST"))
    assert upstreams.until(lambda: "Secret default/good has nothing under `accessKeySecret`; the last good one goes on" in gateway.text()), gateway.text()[-2000:]
    for kind in access("good", 1):
        assert call(gateway, "good", kind).status == 200
