"""Check who may import whom: the contracts of [tool.importlinter] in pyproject.toml.

import-linter reads Python sources and would not see an import of the compiled `_native`.
So it is shown a copy of the package in which an empty `_native.py` stands in.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path("python/nats_consumer")


def main() -> int:
    """Run the contracts over the copy; return import-linter's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, PACKAGE.name)
        shutil.copytree(
            PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "*.pyi", "__pycache__")
        )
        (copy / "_native.py").touch()
        return subprocess.run(
            [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
            env={**os.environ, "PYTHONPATH": folder},
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
