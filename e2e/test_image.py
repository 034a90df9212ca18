"""The image: small, no shell, not root; and what is in it is enough for the program to serve, and to find backends by name. It is built as e2e/image.sh
does, from the program under test. Its root folder runs in a chroot, which is what a container's view of files is."""

import os
import re
import subprocess
import urllib.request

import paifang
from paifang import REPO

# Of the program as it is tested, hardly optimised; a release is less than half.
MOST_BYTES = 60 << 20
NOBODY = 65532


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_it_is_small_and_holds_one_program(tmp_path):
    archive = tmp_path / "image.tar"
    said = run(REPO / "e2e/image.sh", paifang.binary(), "paifang.test/image:1", archive)
    user, size = re.match(r"paifang.test/image:1: (\S+), (\d+) bytes\n", said).groups()
    assert user == f"{NOBODY}:{NOBODY}"
    assert int(size) < MOST_BYTES and 0 < archive.stat().st_size < MOST_BYTES
    files = [line.split(maxsplit=1)[1] for line in said.splitlines()[1:]]
    allowed = r"/paifang|/etc/(passwd|group|nsswitch\.conf|ssl/certs/ca-certificates\.crt)|/lib(64)?/.*\.so\.\d+"
    assert "/paifang" in files
    assert [file for file in files if not re.fullmatch(allowed, file)] == []


def test_both_ends_of_the_dockerfile_are_the_same():
    """The image that is tested and the one that people build differ in how the program was compiled only."""
    stages = re.split(r"^FROM ", (REPO / "Dockerfile").read_text(), flags=re.M)[1:]
    ends = [stage.splitlines()[1:] for stage in stages if stage.startswith("scratch")]
    assert len(ends) == 2
    first, last = ([line for line in end if line and not line.startswith(("#", "COPY"))] for end in ends)
    assert first == last == [f"USER {NOBODY}:{NOBODY}", 'ENTRYPOINT ["/paifang"]']


def test_it_serves_and_finds_backends_by_name(tmp_path):
    root = tmp_path / "root"
    run(REPO / "e2e/rootfs.sh", paifang.binary(), root)
    (root / "etc/hosts").write_text("127.0.0.1 echo.paifang.test\n")
    os.chown(root / "var/lib/paifang", NOBODY, NOBODY)
    echo = paifang.free_port()
    backend = {"http": {"address": f"http://echo.paifang.test:{echo}"}}
    paifang.Folder(root / "config").write("all.yaml", *paifang.group("g", "g.test"), paifang.api("a", "g", "/a", backend))
    command = ["chroot", f"--userspec={NOBODY}:{NOBODY}", root, "/paifang", "standalone", "/config", "--state", "/var/lib/paifang/state", f"--echo=127.0.0.1:{echo}",
               "--http", "127.0.0.1:0", "--https", "off", "--internal", "off", "--admin", "off"]
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if ready := re.match(r"ready http=(\S+)", line):
                break
        else:
            raise AssertionError("it ended:\n" + "".join(said))
        request = urllib.request.Request(f"http://{ready.group(1)}/a", headers={"Host": "g.test"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert paifang.echo_of(answer.read())
    finally:
        process.terminate()
        process.communicate(timeout=30)
