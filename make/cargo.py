"""Run cargo with the variables that maturin gives it: `cargo.py clippy --workspace`.

PyO3 compiles again whenever one of them differs, and so would every crate above it.
"""

import os
import subprocess
import sys

from steps import ROOT

_CONFIGURATIONS = ROOT / "target/maturin"


def main(*arguments: str) -> int:
    """Return cargo's exit code."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    variables = {
        "PYO3_PYTHON": sys.executable,
        "PYO3_ENVIRONMENT_SIGNATURE": f"{sys.implementation.name}-{version}-64bit",
    }
    # Written by `maturin develop`, for the stable ABI.
    for file in _CONFIGURATIONS.glob("pyo3-config-*-abi3.txt"):
        variables["PYO3_CONFIG_FILE"] = str(file)
    command = ["cargo", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
