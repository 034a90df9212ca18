"""Starts the gateway on a folder of YAML, and writes such folders.

Everything listens on loopback and on ports the system chose; whatever is started here is stopped here.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import yaml

REPO = pathlib.Path(__file__).resolve().parent.parent
START_SECONDS = 30


def binary() -> pathlib.Path:
    """The program under test: PAIFANG_BIN, or what `cargo build -p paifang` makes."""
    chosen = os.environ.get("PAIFANG_BIN")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
    path = pathlib.Path(chosen) if chosen else target / "debug" / "paifang"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `cargo build -p paifang`, or set PAIFANG_BIN")
    return path


def free_port() -> int:
    """A port that is free now. For what must be known before the gateway starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Gateway:
    """One running `paifang standalone`."""

    def __init__(self, folder, state, log, *, echo_port=None, extra=()):
        self.folder, self.state, self.log = pathlib.Path(folder), pathlib.Path(state), pathlib.Path(log)
        self.echo_port, self.extra = echo_port, tuple(extra)
        self.process, self.addresses = None, {}

    def start(self):
        command = [binary(), "standalone", self.folder, "--state", self.state]
        for name in ("http", "https", "internal", "admin"):
            if f"--{name}" not in self.extra:
                command += [f"--{name}", "127.0.0.1:0"]
        if self.echo_port is not None:
            command += [f"--echo=127.0.0.1:{self.echo_port}"]
        command += self.extra
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            before = log.tell()
            self.process = subprocess.Popen([str(c) for c in command], stdout=log, stderr=subprocess.STDOUT,
                                            stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            self._wait_ready(before)
        except BaseException:
            self.kill()
            raise
        return self

    def _wait_ready(self, before):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            text = self.log.read_bytes()[before:].decode("utf-8", "replace")
            if ready := re.search(r"^ready (.*)$", text, re.M):
                pairs = dict(part.split("=", 1) for part in ready.group(1).split() if "=" in part)
                self.addresses = {name: value for name, value in pairs.items() if ":" in value}
                return
            if self.process.poll() is not None:
                raise AssertionError(f"paifang ended with {self.process.returncode} before it was ready:\n{text}")
            time.sleep(0.01)
        raise AssertionError(f"paifang was not ready after {START_SECONDS} s:\n{text}")

    def address(self, listener):
        host, port = self.addresses[listener].rsplit(":", 1)
        return host, int(port)

    def port(self, listener):
        return self.address(listener)[1]

    def text(self):
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def terminate(self, timeout=60):
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self):
        """The end, whatever state it is in: its whole process group, waited for."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(10)


class Folder:
    """A folder of YAML that a test writes and changes."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.mkdir(parents=True, exist_ok=True)

    def write(self, name, *objects):
        """Replaces a file in one step, as editors and `kubectl` do."""
        self.write_text(name, yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True))

    def write_text(self, name, text):
        target = self.path / name
        scratch = self.path.parent / f".{name}.new"
        scratch.write_text(text)
        scratch.replace(target)

    def remove(self, name):
        (self.path / name).unlink()


# === Objects, as short as a test wants them ===


def kind(name, of, **spec):
    return {"apiVersion": "paifang.dev/v1alpha1", "kind": of, "metadata": {"name": name}, "spec": spec}


def group(name, domain=None, **spec):
    """A group that takes any load, and the domain callers use."""
    spec = {"displayName": f"group_{name}"[:50].replace("-", "_"), "qpsLimit": 1_000_000, **spec}
    found = [kind(name, "ApiGroup", **spec)]
    if domain:
        found.append(binding(f"{name}-domain", name, domain))
    return found


def binding(name, to, domain, **spec):
    return kind(name, "DomainBinding", groupRef={"name": to}, domain=domain, network="Internet", **spec)


def api(name, of, path, backend, *, method="GET", auth=None, mode="Passthrough", protocols=("HTTP", "HTTPS"),
        stages=("RELEASE",), parameters=None, **spec):
    request = {"protocols": list(protocols), "method": method, "path": path, "mode": mode}
    if parameters:
        request["parameters"] = parameters
    return kind(name, "Api", groupRef={"name": of}, displayName=f"api_{name}"[:50].replace("-", "_"),
                auth=auth or {"type": "Anonymous"}, request=request, backend=backend,
                stages={stage: {} for stage in stages}, **spec)


def mock(body, status=200, content_type="text/plain"):
    return {"mock": {"statusCode": status, "headers": [{"name": "Content-Type", "value": content_type}], "body": body}}


def http_backend(port, **spec):
    return {"http": {"address": f"http://127.0.0.1:{port}", **spec}}


def secret(name, kind_of=None, **data):
    found = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
    if kind_of:
        found["type"] = kind_of
    return found


def app(name, key=None, app_secret=None, code=None):
    credentials, found = [], []
    if key:
        credentials.append({"name": "primary", "type": "KeyPair", "secretRef": {"name": f"{name}-key"}})
        found.append(secret(f"{name}-key", appKey=key, appSecret=app_secret))
    if code:
        credentials.append({"name": "code", "type": "AppCode", "secretRef": {"name": f"{name}-code"}})
        found.append(secret(f"{name}-code", appCode=code))
    return [kind(name, "App", displayName=f"app_{name}"[:26].replace("-", "_"), credentials=credentials), *found]


def authorization(name, of, apps, stage="RELEASE", **spec):
    return kind(name, "Authorization", group={"name": of}, apps=[{"name": a} for a in apps], stage=stage, **spec)


# === Tools ===


def tool(name):
    """A program the tests need. Missing is an error, not a skip: a test that did not run proves nothing."""
    local = REPO / ".cache" / "bin" / name
    found = str(local) if local.exists() else shutil.which(name) or shutil.which(name, path=os.path.expanduser("~/go/bin"))
    if not found:
        raise FileNotFoundError(f"{name} is missing: run e2e/setup.sh")
    return found


class Isolated:
    """Programs that listen on ports of their own choice: in a network of their own, in which `port` is reached by way of this one's. They are told
    nothing of each other; what they print is in `log`."""

    def __init__(self, log, inner_port, *commands, environment=()):
        self.log, words = log, [word for command in commands for word in ("--", *command)]
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, log.open("wb") as output:
            self.port, descriptor = listener.getsockname()[1], listener.fileno()
            command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, REPO / "e2e/within.py", descriptor, inner_port, *words]
            self.process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                            pass_fds=[descriptor], start_new_session=True, env={**os.environ, **dict(environment)})
        deadline = time.monotonic() + 60
        while "ready\n" not in self.text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.text()
            time.sleep(0.02)

    def text(self):
        return self.log.read_text("utf-8", "replace")

    def stop(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


def echo_of(text):
    """The echo backend's answer, read."""
    return json.loads(text)
