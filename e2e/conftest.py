"""What every test may ask for: a running gateway, and its log when the test fails."""

import pytest

import paifang
import upstreams

LOG_LINES = 60


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A CA of this run and certificates signed by it."""
    import certificates as made

    return made.Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def start(tmp_path, request):
    """Starts gateways that live as long as the test: start(folder, echo_port=…, extra=…)."""
    running = []

    def run(folder, *, state=None, echo_port=None, extra=()):
        number = len(running)
        gateway = paifang.Gateway(getattr(folder, "path", folder), state or tmp_path / "state", tmp_path / f"paifang-{number}.log",
                                  echo_port=echo_port, extra=extra)
        running.append(gateway)
        return gateway.start()

    request.node.gateways = running
    yield run
    for gateway in running:
        gateway.kill()


@pytest.fixture
def folder(tmp_path):
    return paifang.Folder(tmp_path / "config")


@pytest.fixture(scope="module")
def module_start(tmp_path_factory, request):
    """Like `start`, for a gateway that all tests of a file share."""
    running = []

    def run(objects, *, echo_port=None, extra=()):
        home = tmp_path_factory.mktemp("gateway")
        folder = paifang.Folder(home / "config")
        folder.write("all.yaml", *objects)
        gateway = paifang.Gateway(folder.path, home / "state", home / "paifang.log", echo_port=echo_port, extra=extra)
        running.append(gateway)
        return gateway.start()

    request.node.gateways = running
    yield run
    for gateway in running:
        gateway.kill()


@pytest.fixture(scope="module")
def recorder():
    upstream = upstreams.Recorder()
    yield upstream
    upstream.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when in ("setup", "call") and report.failed:
        for node in (item, item.getparent(pytest.Module)):
            for gateway in getattr(node, "gateways", []):
                tail = "\n".join(gateway.text().splitlines()[-LOG_LINES:])
                state = "running" if gateway.alive() else f"ended with {gateway.process and gateway.process.returncode}"
                report.sections.append((f"paifang's log ({state})", tail))
    return report
