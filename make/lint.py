"""`make lint`: the linters, the workflow files, the known vulnerabilities of dependencies, and what
the crate promises."""

import sys
from pathlib import Path

from linters import PYTHON, PYTHON_SOURCES, RUST
from steps import ROOT, Step, run_all

# `make test` runs it among the Rust tests.
ENGINE_IMPORTS = Step(
    "imports of the engine",
    ["cargo", "test", "--quiet", "--package", "nats-consumer", "--test", "architecture"],
)
WORKFLOWS = Step(
    "workflows",
    [Path(PYTHON).with_name("actionlint"), *sorted(ROOT.glob(".github/workflows/*.yml"))],
)
CRATE = [
    Step("oldest Rust", [PYTHON, "make/oldest_rust.py"]),
    Step("semver", [PYTHON, "make/semver.py"]),
]
ADVISORIES = [
    Step("cargo deny", [PYTHON, "make/advisories.py", "deny"]),
    Step("cargo advisories", [PYTHON, "make/advisories.py", "cargo"]),
    Step("pip-audit", [PYTHON, "make/advisories.py", "pip"]),
]

if __name__ == "__main__":
    rust = [*RUST, ENGINE_IMPORTS, *CRATE]
    sys.exit(run_all("lint", [[*PYTHON_SOURCES, WORKFLOWS, *ADVISORIES], rust]))
