"""`make test`: the linters, the Rust tests and the Python tests, all of them, then what came of it.

With QUICK in the environment, the Python tests run on our own Python only.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from linters import CARGO, LINTERS, PYTHON
from steps import ROOT, Step, run_all

NATS_SERVER = Path(PYTHON).with_name("nats-server")
ENGINE = ["--package", "nats-consumer"]
# The Django that each Python beside our own is tested with.
OTHER_PYTHONS = {
    "3.11": "Django~=5.2.0",
    "3.12": "Django~=6.0.0",
    "3.13": "Django~=6.1.0",
    "3.14": "Django~=6.1.0",
}
WHEEL = "target/wheel"


def main() -> int:
    """Run all steps and return the exit code."""
    rust, rust_notes = rust_steps()
    elsewhere, elsewhere_notes = elsewhere_steps()
    here = Step("pytest", [PYTHON, "-m", "pytest"], minutes=20)
    return run_all("test", [*LINTERS, *rust, here, *elsewhere], rust_notes + elsewhere_notes)


def rust_steps() -> tuple[list[Step], list[str]]:
    """Unit and integration tests, doc tests, and the examples compiled."""
    environment: dict[str, str | Path] = {**CARGO, "NATS_SERVER": NATS_SERVER}
    notes = []
    if shutil.which("cargo-nextest"):
        runner = ["cargo", "nextest", "run"]
    else:
        runner = ["cargo", "test", "--no-fail-fast", "--lib", "--tests"]
        notes.append("cargo-nextest was not found: the Rust tests ran under `cargo test`.")
    commands = {
        "rust tests": [*runner, *ENGINE],
        "rust doc tests": ["cargo", "test", "--doc", *ENGINE],
        "rust examples": ["cargo", "build", "--examples", *ENGINE],
    }
    return [Step(name, command, 20, environment) for name, command in commands.items()], notes


def elsewhere_steps() -> tuple[list[Step], list[str]]:
    """One wheel, as users get it, tested on every other Python that this machine has."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if os.environ.get("QUICK"):
        return [], [f"QUICK: tested on Python {own} only."]
    others = [version for version in OTHER_PYTHONS if version != own]
    found = [version for version in others if _is_found(version)]
    missing = [version for version in others if version not in found]
    notes = [f"Pythons for the tests: {', '.join([own, *found])}."]
    if missing:
        notes.append(f"Not found, so not tested on: {', '.join(missing)}.")
    if not found:
        return [], notes
    shutil.rmtree(ROOT / WHEEL, ignore_errors=True)  # no test of an older wheel
    maturin = [PYTHON, "-m", "maturin", "build", "--release", "--interpreter", PYTHON]
    build = Step("wheel", [*maturin, "--out", WHEEL], 20, CARGO)
    return [build, *(_pytest_on(version) for version in found)], notes


def _pytest_on(version: str) -> Step:
    command = [PYTHON, "make/pytest_on.py", version, OTHER_PYTHONS[version], WHEEL]
    return Step(f"pytest on {version} with {OTHER_PYTHONS[version]}", command, minutes=20)


def _is_found(version: str) -> bool:
    return subprocess.run([ROOT / "make/find-python", version], capture_output=True).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
