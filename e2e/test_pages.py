"""Every page under config/ does what it says: its `console` blocks are run, command by command, and compared.

A line that begins with `$ ` is a command for bash; the lines behind it are what it prints. `...` in them stands for anything.
One shell runs a whole page, so variables and functions stay. Ports are those the page names, changed to free ones."""

import os
import re
import shutil
import subprocess

import pytest

import paifang
from paifang import REPO

PAGES = sorted(path.parent.name for path in (REPO / "config").glob("*/README.md"))
MARK = "=== end of command ==="


def commands(text):
    """(command, what it should print) of a page."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return [(command, "\n".join(expected)) for command, expected in found]


def matches(expected, printed):
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("..."))
    return re.fullmatch(pattern, printed.strip(), re.S) is not None


def run(script, **options):
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, **options)


def test_there_are_pages():
    assert "quickstart" in PAGES and len(PAGES) >= 5


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
    echo = paifang.free_port() if "--echo" in began.group(1) else None
    if echo:
        for file in (root / "config" / page).glob("*.yaml"):
            file.write_text(re.sub(r"\b9000\b", str(echo), file.read_text()))
    gateway = start(root / "config" / page, echo_port=echo)

    def here(line):
        for listener, port in (("http", 8080), ("https", 8443), ("internal", 8081), ("admin", 9901)):
            line = re.sub(rf"(?<=:){port}\b", str(gateway.port(listener)), line)
        return line

    steps = commands(text)
    assert steps, "the page has no commands"
    script = "\n".join(f"{here(command)}\nprintf '\\n%s\\n' '{MARK}'" for command, _ in steps)
    environment = {**os.environ, "PATH": f"{paifang.binary().parent}:{os.environ['PATH']}"}
    done = run(script, cwd=root, env=environment)
    printed = [part.strip("\n") for part in done.stdout.split(f"{MARK}\n")]
    assert len(printed) == len(steps) + 1, done.stdout + done.stderr
    problems = [f"$ {command}\n  expected: {expected}\n  printed:  {found}"
                for (command, expected), found in zip(steps, printed) if not matches(here(expected), found)]
    assert not problems, "\n" + "\n".join(problems) + "\n" + done.stderr
    assert not done.stderr, done.stderr


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
    steps = commands(text)
    assert len(steps) >= 2
    for command, expected in steps:
        command = command.replace(":8080", f":{gateway.port('http')}")
        if command.startswith("cargo run"):
            command = command.replace("cargo run -q --release -p paifang --", str(paifang.binary())) + f" --url http://127.0.0.1:{gateway.port('http')}"
        done = run(command, cwd=tmp_path)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        assert done.stdout.strip() and (not expected or matches(expected, done.stdout)), f"$ {command}\n{done.stdout}"


def test_every_sample_is_accepted_without_a_word():
    """`paifang check` finds nothing in any of them."""
    for page in PAGES:
        done = subprocess.run([paifang.binary(), "check", REPO / "config" / page], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{page}:\n{done.stdout}{done.stderr}"
