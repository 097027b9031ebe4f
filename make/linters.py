"""The build and the linters, as lanes of steps: `make lint` runs them, and `make test` too."""

import sys

from steps import Step

PYTHON = sys.executable
CARGO = [PYTHON, "make/cargo.py"]
STUBTEST = [PYTHON, "-m", "mypy.stubtest", "nats_consumer._native"]

# Cargo's steps wait for each other, because cargo locks `target`.
RUST = [
    Step("build", ["make", "--no-print-directory", ".venv/.built"]),
    Step("cargo fmt", ["cargo", "fmt", "--all", "--check"]),
    Step("clippy", [*CARGO, "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    Step(
        "cargo doc",
        [*CARGO, "doc", "--package", "nats-consumer", "--no-deps"],
        environment={"RUSTDOCFLAGS": "-D warnings"},
    ),
]
PYTHON_SOURCES = [
    Step("ruff check", [PYTHON, "-m", "ruff", "check", "."]),
    Step("ruff format", [PYTHON, "-m", "ruff", "format", "--check", "."]),
    Step("imports", [PYTHON, "make/imports.py"]),
    Step("mypy", [PYTHON, "-m", "mypy"]),
    Step("stubtest", [*STUBTEST, "--mypy-config-file", "pyproject.toml"], after="build"),
]
