"""`make wheels`: the wheel for this platform and the sdist, in `dist/`.

On Linux zig links them, so that the wheel runs on every system with the C library that its tag
names, not only on those as new as this one. `TARGET` in the environment names another platform by
its Rust target, whose standard library cargo must have.
"""

import os
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from readme import readme_for_the_index
from steps import ROOT
from version import python_version

DIST = ROOT / "dist"
# glibc 2.28 and musl 1.2: what pip's oldest supported systems have.
_COMPATIBILITY = {"gnu": "manylinux_2_28", "musl": "musllinux_1_2"}


def main() -> int:
    """Build both; return the exit code of the first maturin that failed, else 0."""
    target = os.environ.get("TARGET", "")
    shutil.rmtree(DIST, ignore_errors=True)
    # One wheel serves every Python: it is built for the stable ABI of 3.11.
    wheel = ["build", "--release", "--locked", "--interpreter", sys.executable, *_linux(target)]
    if target:
        wheel += ["--target", target]
    package = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    with readme_for_the_index(python_version(package["version"])):
        return _maturin("sdist") or _maturin(*wheel, target=target)


def _maturin(*arguments: str, target: str = "") -> int:
    # maturin looks for zig beside the python on the path.
    environment = dict(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if "--zig" in arguments and _COMPATIBILITY["gnu"] in arguments:
        environment["RUSTFLAGS"] = (
            f"{environment.get('RUSTFLAGS', '')} {_shared_unwinder(target)}".strip()
        )
    command = [sys.executable, "-m", "maturin", *arguments, "--out", str(DIST)]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def _shared_unwinder(target: str) -> str:
    """The rustc flag that links the system's unwinder. Zig has one of its own inside the library;
    Python 3.12 and 3.13 end daemon threads at exit by the system's, and the two crash together."""
    here = platform.machine()
    processor = target.partition("-")[0] or here
    # Another processor's library comes with the C compiler for it.
    compiler = "cc" if processor == here else f"{processor}-linux-gnu-gcc"
    if not shutil.which(compiler):
        sys.exit(f"{compiler} was not found: the wheel for {processor} links its libgcc_s.so.1")
    asked = [compiler, "-print-file-name=libgcc_s.so.1"]
    library = Path(subprocess.check_output(asked, text=True).strip())
    if not library.is_absolute():  # the compiler repeats a name that it does not find
        sys.exit(f"{compiler} has no libgcc_s.so.1: install libgcc for {processor}")
    return f"-Clink-arg={library}"


def _linux(target: str) -> list[str]:
    if not (target or platform.system().lower()).count("linux"):
        return []
    library = "musl" if "musl" in target else "gnu"
    return ["--zig", "--compatibility", _COMPATIBILITY[library]]


if __name__ == "__main__":
    sys.exit(main())
