"""`make test`: the linters, the Rust tests and the Python tests, then what came of them.

With MATRIX in the environment also: the wheel, installed as users do, and the Python tests with it,
on every Python found here. With ALL also: every fault, other projects' own tests (SUITES names
their folder), the oldest nats-server, the sdist, the container and the packaged crate.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from linters import CARGO, PYTHON, PYTHON_SOURCES, RUST
from servers import OLDEST
from steps import ROOT, Step, run_all

NATS_SERVER = Path(PYTHON).with_name("nats-server")
MAKE = ["make", "--no-print-directory"]
# The Django that each Python is tested with.
DJANGO_ON = {
    "3.11": "Django~=5.2.0",
    "3.12": "Django~=6.0.0",
    "3.13": "Django~=6.1.0",
    "3.14": "Django~=6.1.0",
}
# Tests of code. The others are about pages and type hints, which are the same on every Python.
RUNNING = ["tests/unit", "tests/django", "tests/live"]
# Other projects' tests, where they lie beside this one.
SUITES = "../shared/suites"
# Most tests wait for a server or a process most of their time, and those in Rust less.
CORES = os.cpu_count() or 2
RUST_TESTS = str(2 * CORES)
IN_PARALLEL = ["--numprocesses", str(3 * CORES), "--dist", "worksteal"]


def main() -> int:
    """Run all steps and return the exit code."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    tests, notes = rust_steps()
    rust = [*RUST, *tests]
    python = [*PYTHON_SOURCES, Step("pytest", [PYTHON, "-m", "pytest", *IN_PARALLEL], "build")]
    has_all = bool(os.environ.get("ALL"))
    if not has_all and not os.environ.get("MATRIX"):
        notes += [f"Tested on Python {own}. MATRIX=1 tests on all, ALL=1 also every fault."]
        return run_all("test", [python, rust], notes)
    rust.append(Step("wheels", [*MAKE, "wheels"]))
    if has_all:
        rust.append(Step("crate", [*MAKE, "crate"]))
    pythons, more_notes = matrix_steps(own)
    notes += more_notes
    if not has_all:
        return run_all("test", [[*python, *pythons], rust], notes)
    suites = [*MAKE, "compatibility", f"SUITES={os.environ.get('SUITES') or SUITES}"]
    python += [
        Step("compatibility", suites, "build"),
        Step(f"nats-server {OLDEST}", [PYTHON, "make/servers.py", OLDEST, *IN_PARALLEL], "build"),
        _try("sdist", own),
        _try("container", own),
    ]
    faults = Step("faults", [*MAKE, "faults"], "build", alone=True)
    return run_all("test", [[*python, *pythons], rust, [faults]], notes)


def rust_steps() -> tuple[list[Step], list[str]]:
    """Unit and integration tests with the examples compiled, and doc tests."""
    environment = {"NATS_SERVER": NATS_SERVER}
    notes = []
    if shutil.which("cargo-nextest"):
        runner = ["nextest", "run", "--status-level", "slow", "--test-threads", RUST_TESTS]
    else:
        runner = ["test", "--no-fail-fast", "--lib", "--tests", "--examples"]
        notes.append("cargo-nextest was not found: the Rust tests ran under `cargo test`.")
    # The whole workspace: for one package, cargo compiles the others with other features.
    commands = {
        "rust tests": [*CARGO, *runner, "--workspace"],
        "rust doc tests": [*CARGO, "test", "--doc", "--workspace"],
    }
    steps = [Step(name, command, environment=environment) for name, command in commands.items()]
    return steps, notes


def matrix_steps(own: str) -> tuple[list[Step], list[str]]:
    """The wheel, as users get it, and the tests with it, on every Python that this machine has."""
    others = [version for version in DJANGO_ON if version != own]
    found = [version for version in others if _is_found(version)]
    missing = [version for version in others if version not in found]
    notes = [f"Pythons for the tests: {', '.join([own, *found])}."]
    if missing:
        notes.append(f"Not found, so not tested on: {', '.join(missing)}.")
    return [
        *(_try("wheel", version) for version in [own, *found]),
        *(_pytest_on(version) for version in found),
    ], notes


def _try(kind: str, version: str) -> Step:
    command = [PYTHON, "make/try_install.py", kind, version, DJANGO_ON[version]]
    return Step(f"{kind} on {version}", command, after="wheels")


def _pytest_on(version: str) -> Step:
    command = [PYTHON, "make/pytest_on.py", version, DJANGO_ON[version], *RUNNING, *IN_PARALLEL]
    return Step(f"pytest on {version} with {DJANGO_ON[version]}", command, after="wheels")


def _is_found(version: str) -> bool:
    return subprocess.run([ROOT / "make/find-python", version], capture_output=True).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
