"""Runs pages as they are written: every `console` block of a page, command by command, and compares what is printed.

- A line that begins with `$ ` is a command for bash; it goes on for as long as bash would ask for more. The lines behind it are what it prints, on
  standard output or standard error. `...` in them stands for anything: ids, times, what a page does not talk about. Spaces at the ends of
  lines do not count. That is all that is taken out of a comparison.
- A command without such lines prints nothing. All succeed; one that is meant to fail ends in `|| echo refused`.
- What stands under a heading "In standalone" or "On a cluster" is for that way of running only, everything else for both.
- One shell runs a whole page, from the top of a copy of the repository's `config/`: a page may change what it explains.
- A person types slowly. So a command that ends in `&` is given the time until it listens, and a command that changed a file of a watched
  folder the time until the gateway has said what it made of it.

Images of `registry.example.com` are those that the tests have built, `paifang.test`. What is called `paifang` is the program under test.

`test_pages.py` runs pages in standalone with this. `python pages.py` runs them on the cluster of KUBECONFIG, one after the other:
crates/paifang/tests/node does, in the network of its node.
"""

import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parent.parent
CONFIG = REPO / "config"
STANDALONE, CLUSTER = "In standalone", "On a cluster"
SECONDS = 120
MARK = "=== end of command"


# === Reading ===


def commands(text, way=None):
    """(command, what it should print) of a page, those for the other ways of running left out."""
    found, headings, block = [], {}, None
    for line in text.splitlines():
        if line.startswith("```"):
            block = line[3:] if block is None else None
        elif block is None and (mark := re.match(r"(#+) (.*)", line)):
            headings = {level: heading for level, heading in headings.items() if level < len(mark[1])} | {len(mark[1]): mark[2]}
        if block != "console" or line.startswith("```") or (set(headings.values()) & {STANDALONE, CLUSTER}) - {way}:
            continue
        if found and goes_on(found[-1][0]):
            found[-1][0] += "\n" + line
        elif line.startswith("$ "):
            found.append([line[2:], []])
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(expected)) for command, expected in found]


def goes_on(command):
    """Whether bash would ask for another line."""
    done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, timeout=10)
    return command.endswith("\\") or any(sign in done.stderr for sign in ("unexpected end of file", "unexpected EOF", "here-document"))


def matches(expected, printed):
    """Whether a page tells the truth about what was printed."""
    expected, printed = (re.sub(r"[ \t]+$", "", text.strip(), flags=re.M) for text in (expected, printed))
    return re.fullmatch(".*".join(re.escape(part) for part in expected.split("...")), printed, re.S) is not None


# === Running ===


class Shell:
    """One bash that is told its commands one by one."""

    def __init__(self, folder, environment):
        reading, self.writing = os.pipe()
        # Commands come on a descriptor of their own: what runs has nothing to read.
        self.process = subprocess.Popen(["bash", f"/dev/fd/{reading}"], cwd=folder, env=environment, pass_fds=[reading], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        os.close(reading)

    def run(self, command):
        """What it prints, and how it ends."""
        os.write(self.writing, f"{command}\nprintf '\\n{MARK} %s\\n' $?\n".encode())
        deadline, printed = time.monotonic() + SECONDS, b""
        while not (done := re.search(rf"\n{MARK} (\d+)\n$", printed.decode("utf-8", "replace"))):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not more:
                why = "the shell ended" if ready else f"it did not end within {SECONDS} s"
                raise AssertionError(f"$ {command}\n{why}; it printed:\n{printed.decode('utf-8', 'replace')}")
            printed += more
        return printed.decode("utf-8", "replace")[: done.start()], int(done[1])

    def end(self):
        """Ends it and all that it started."""
        os.close(self.writing)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(10)
        self.process.stdout.close()


def follow(shell, steps, here=lambda text: text, rest=lambda command: None):
    """Runs steps and says what is not as the page says. `here` translates what the page says to this place, `rest` is called after each command."""
    problems = []
    for command, expected in steps:
        printed, code = shell.run(here(command))
        rest(here(command))
        if not matches(here(expected), printed) or code:
            problems.append(f"$ {command}\n  expected: {expected}\n  printed:  {printed.strip()}\n  exit code {code}")
    return problems


def environment(program, **more):
    return {**os.environ, "PATH": f"{program.parent}:{REPO / '.cache/bin'}:{REPO / '.cache/venv/bin'}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8",
            # As if its packages had been installed here.
            "NODE_PATH": str(REPO / "e2e/clients/node/node_modules"), **more}


# === On a cluster ===

IMAGES = ("registry.example.com/", "paifang.test/")


def listening(command):
    """Waits until what goes on in the background listens: a port-forward, or a program that was told where."""
    port = re.search(r"(?: port-forward \S+ |--listen [\d.]+:|--port (?:[\d.]+:)?)(\d+).*&$", command)
    deadline = time.monotonic() + 30
    while port:
        try:
            return socket.create_connection(("127.0.0.1", int(port[1])), 1).close()
        except OSError:
            assert time.monotonic() < deadline, f"$ {command}\nnothing listens on port {port[1]}"
            time.sleep(0.05)


def on_a_cluster(program, names):
    """Runs the chapters of these names on the cluster of KUBECONFIG, after what config/README.md does once for all; whether all went as written."""
    with tempfile.TemporaryDirectory(prefix="paifang-pages-") as scratch:
        root = pathlib.Path(scratch)
        shutil.copytree(CONFIG, root / "config")
        # A page may choose a namespace or a context for itself.
        kubeconfig = shutil.copy(os.environ["KUBECONFIG"], root / "kubeconfig")
        good, shells = True, []
        try:
            for page in ["README.md", *(f"{name}/README.md" for name in names)]:
                began = time.monotonic()
                shells.append(Shell(root, environment(program, KUBECONFIG=str(kubeconfig))))
                steps = commands((root / "config" / page).read_text(), CLUSTER)
                problems = follow(shells[-1], steps, lambda text: text.replace(*IMAGES), listening)
                problems += [] if steps else ["there is nothing to do in it on a cluster"]
                good = good and not problems
                print(f"config/{page}: {len(steps)} commands, {len(problems)} problems, {time.monotonic() - began:.1f} s")
                print("\n".join(problems), end="\n" if problems else "", flush=True)
        finally:
            for shell in shells:
                shell.end()
    return good


def chapters():
    """The folders that have a page."""
    return sorted(path.parent.name for path in CONFIG.glob("*/README.md"))


if __name__ == "__main__":
    program = pathlib.Path(os.environ["PAIFANG_BIN"]).resolve()
    sys.exit(0 if on_a_cluster(program, sys.argv[1:] or [name for name in chapters() if name != "quickstart"]) else 1)
