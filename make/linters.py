"""The build and the linters, as steps: what `make lint` runs, and `make test` first."""

import sys

from steps import Step

PYTHON = sys.executable
# PyO3 asks an interpreter for its configuration: always the same one, or cargo builds it anew.
CARGO = {"PYO3_PYTHON": PYTHON}
STUBTEST = [PYTHON, "-m", "mypy.stubtest", "nats_consumer._native"]

LINTERS = [
    # stubtest and the tests need it; a step, so that what does not build is still linted.
    Step("build", ["make", "--no-print-directory", ".venv/.built"], minutes=20),
    Step("cargo fmt", ["cargo", "fmt", "--all", "--check"]),
    Step(
        "clippy",
        ["cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        minutes=20,
        environment=CARGO,
    ),
    Step(
        "cargo doc",
        ["cargo", "doc", "--package", "nats-consumer", "--no-deps"],
        minutes=20,
        environment={"RUSTDOCFLAGS": "-D warnings"},
    ),
    Step("ruff check", [PYTHON, "-m", "ruff", "check", "."]),
    Step("ruff format", [PYTHON, "-m", "ruff", "format", "--check", "."]),
    Step("mypy", [PYTHON, "-m", "mypy"]),
    Step("stubtest", [*STUBTEST, "--mypy-config-file", "pyproject.toml"]),
    Step("imports", [PYTHON, "make/imports.py"]),
    Step(
        "imports of the engine",
        ["cargo", "test", "--quiet", "--package", "nats-consumer", "--test", "architecture"],
        minutes=20,
        environment=CARGO,
    ),
]
