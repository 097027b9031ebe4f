"""Run the Python tests against the wheel on another Python.

`pytest_on.py 3.13 Django~=6.0.0 ARGUMENTS...`: the wheel is in `dist/`, ARGUMENTS are for pytest.

The wheel is installed into `.venv-3.13`, never the checkout: that is how users get it.
"""

import subprocess
import sys
from pathlib import Path

from steps import NOT_RUN, ROOT


def main(version: str, django: str, *arguments: str) -> int:
    """Make or bring up to date the environment, then return pytest's exit code."""
    wheel = next((ROOT / "dist").glob("*.whl"), None)
    if wheel is None:
        print("There is no wheel in dist: run `make wheels`.")
        return NOT_RUN
    environment = ROOT / f".venv-{version}"
    python = environment / "bin/python"
    if not _runs(python):
        found = subprocess.check_output([ROOT / "make/find-python", version], text=True).strip()
        subprocess.run([found, "-m", "venv", "--clear", "--without-pip", environment], check=True)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python]
    install = [*pip, "install", "--quiet"]
    subprocess.run([*install, "--group", "test", django], check=True)
    subprocess.run([*install, "--force-reinstall", "--no-deps", wheel], check=True)
    subprocess.run([*pip, "check"], check=True)
    return subprocess.run([python, "-m", "pytest", *arguments], check=False).returncode


def _runs(python: Path) -> bool:
    return python.exists() and subprocess.run([python, "-c", ""], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
