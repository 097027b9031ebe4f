"""`make lint`: the linters, and the known vulnerabilities of what we depend on."""

import sys

from linters import PYTHON_SOURCES, RUST
from steps import Step, run_all

# `make test` runs it among the Rust tests.
ENGINE_IMPORTS = Step(
    "imports of the engine",
    ["cargo", "test", "--quiet", "--package", "nats-consumer", "--test", "architecture"],
)
ADVISORIES = [
    Step("cargo deny", [sys.executable, "make/advisories.py", "deny"]),
    Step("cargo advisories", [sys.executable, "make/advisories.py", "cargo"]),
    Step("pip-audit", [sys.executable, "make/advisories.py", "pip"]),
]

if __name__ == "__main__":
    sys.exit(run_all("lint", [[*PYTHON_SOURCES, *ADVISORIES], [*RUST, ENGINE_IMPORTS]]))
