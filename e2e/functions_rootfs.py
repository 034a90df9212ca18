"""python functions_rootfs.py FOLDER: lays out the root folder of an image with Python and functions-framework, as the Dockerfile of the chapter about
functions has it: nothing can be pulled, so it is the Python that runs this, its libraries, and the packages beside this one."""

import importlib.metadata
import pathlib
import re
import shutil
import subprocess
import sys

STDLIB = pathlib.Path(sys.base_prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
LEFT_OUT = ("__pycache__", "test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "turtledemo", "site-packages", "config-*", "*.a")


def packages(name, found):
    """A package with all that it needs here."""
    if name not in found:
        found[name] = importlib.metadata.distribution(name)
        for need in found[name].requires or []:
            if ";" not in need or _wanted(need):
                packages(re.match(r"[\w.-]+", need)[0], found)
    return found.values()


def _wanted(need):
    """Extras are not; what depends on the platform is, if it is installed."""
    if "extra ==" in need:
        return False
    try:
        return bool(importlib.metadata.distribution(re.match(r"[\w.-]+", need)[0]))
    except importlib.metadata.PackageNotFoundError:
        return False


def libraries(file):
    """The loader and the libraries that a program or a module needs."""
    said = subprocess.run(["ldd", file], capture_output=True, text=True).stdout
    return [pathlib.Path(path) for path in re.findall(r"(?:=> |^\s)(/\S+)", said, re.M)]


def copy(file, root, at=None):
    target = root / str(at or file).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file.resolve(), target)


def lay_out(root):
    python = pathlib.Path(sys.executable).resolve()
    copy(python, root)
    shutil.copytree(STDLIB, root / str(STDLIB).lstrip("/"), ignore=shutil.ignore_patterns(*LEFT_OUT))
    site = STDLIB / "site-packages"
    for package in packages("functions-framework", {}):
        for file in package.files:
            # Not the scripts in bin: they name a Python of this machine.
            if ".." not in file.parts and file.suffix != ".pyc":
                copy(pathlib.Path(file.locate()), root, site / file)
    modules = [path for path in root.rglob("*.so*") if path.is_file()]
    for library in {library for file in [python, *modules] for library in libraries(file)}:
        copy(library, root)
    script = root / "usr/local/bin/functions-framework"
    script.parent.mkdir(parents=True)
    # Debian's Python would look for packages elsewhere.
    script.write_text(f"#!{python}\nimport sys\nsys.path.insert(0, '{site}')\nfrom functions_framework._cli import _cli\n_cli()\n")
    script.chmod(0o755)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)


if __name__ == "__main__":
    lay_out(pathlib.Path(sys.argv[1]))
