"""Every page under config/ does what it says, in standalone: pages.py tells how pages are run. Ports are changed to free ones.

crates/paifang/tests/node runs the same pages on a cluster."""

import re
import shutil
import subprocess
import time

import pytest

import paifang
import pages
from paifang import REPO

PAGES = pages.chapters()


def test_there_are_pages():
    """All that the first pages name, and no more."""
    for index, place in ((REPO / "README.md", "config/"), (REPO / "config/README.md", "")):
        named = re.findall(rf"^\| \[\S+\]\({place}([^/]+)/README.md\)", index.read_text(), re.M)
        assert sorted([*named, "quickstart"]) == PAGES, index
    assert len(PAGES) == 8


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(page, start, tmp_path):
    source = REPO / "config" / page
    text = (source / "README.md").read_text()
    began = re.search(rf"^(?:cargo run --release -p paifang -- |paifang )standalone config/{re.escape(page)}\b(.*)$", text, re.M)
    assert began, "the page does not say how to start the gateway"
    assert set(began.group(1).split()) <= {"--echo"}

    # A copy, so that a page may change what it explains, and so that nothing is written beside the samples.
    root = tmp_path / "repo"
    shutil.copytree(source, root / "config" / page)
    ports = {port: paifang.free_port() for port in range(9000, 9004)}

    def here(line):
        return re.sub(rf"(?<=[: ])({'|'.join(map(str, ports))})\b", lambda port: str(ports[int(port[1])]), line)

    for file in (root / "config" / page).glob("*.yaml"):
        file.write_text(here(file.read_text()))
    gateway = start(root / "config" / page, echo_port=ports[9000] if began.group(1) else None)
    ports |= {port: gateway.port(listener) for listener, port in (("http", 8080), ("https", 8443), ("internal", 8081), ("admin", 9901))}

    def seen(command):
        """Waits until what was started listens, and until the gateway has told what it made of a change."""
        pages.listening(command)
        now = files(root / "config" / page)
        if now == watched[0]:
            return
        watched[0], deadline = now, time.monotonic() + 30
        while len(told(gateway)) == said[0]:
            assert time.monotonic() < deadline, f"$ {command}\nthe gateway says nothing about the change:\n{gateway.text()}"
            time.sleep(0.01)
        said[0] = len(told(gateway))

    steps = pages.commands(text, pages.STANDALONE)
    assert steps, "the page has no commands"
    watched, said = [files(root / "config" / page)], [len(told(gateway))]
    shell = pages.Shell(root, pages.environment(paifang.binary()))
    try:
        problems = pages.follow(shell, steps, here, seen)
    finally:
        shell.end()
    assert not problems, "\n" + "\n".join(problems)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*.yaml")}


def told(gateway):
    return re.findall(r"^(?:served after|nothing else is served)", gateway.text(), re.M)


def test_the_first_page_of_all(start, tmp_path):
    """README.md: its two commands are the ones that exist, and what it shows to try works."""
    text = (REPO / "README.md").read_text()
    assert "\ncargo run --release -p paifang -- standalone config/quickstart --echo\n" in text
    assert "\n./test.sh\n" in text and "exec ./test.sh" in (REPO / ".ci/run").read_text()
    shutil.copytree(REPO / "config/quickstart", tmp_path / "config/quickstart")
    echo = paifang.free_port()
    for file in (tmp_path / "config/quickstart").glob("*.yaml"):
        file.write_text(file.read_text().replace("127.0.0.1:9000", f"127.0.0.1:{echo}"))
    gateway = start(tmp_path / "config/quickstart", echo_port=echo)
    steps = pages.commands(text)
    assert len(steps) >= 2
    for command, expected in steps:
        command = command.replace(":8080", f":{gateway.port('http')}")
        if command.startswith("cargo run"):
            command = command.replace("cargo run -q --release -p paifang --", str(paifang.binary())) + f" --url http://127.0.0.1:{gateway.port('http')}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, cwd=tmp_path)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        assert done.stdout.strip() and (not expected or pages.matches(expected, done.stdout)), f"$ {command}\n{done.stdout}"


def test_every_sample_is_accepted_without_a_word():
    """`paifang check` finds nothing in any of them."""
    for page in PAGES:
        done = subprocess.run([paifang.binary(), "check", REPO / "config" / page], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{page}:\n{done.stdout}{done.stderr}"
