"""Ask cargo-deny or pip-audit about our dependencies, where the tool and its database are there.

Both read databases from the network: where those do not answer, this says so and exits with
`NOT_RUN`, which is no failure of ours.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from steps import NOT_RUN, ROOT


def cargo() -> int:
    """Check deny.toml: licences, bans and sources always, advisories if they can be fetched."""
    if not shutil.which("cargo-deny"):
        print("cargo-deny was not found: `cargo install cargo-deny` installs it")
        return NOT_RUN
    checked = _run("cargo", "deny", "check", "bans", "licenses", "sources")
    if checked != 0:
        return checked
    if _run("cargo", "deny", "fetch", "db") != 0:
        print("the advisory database could not be fetched: bans, licenses and sources are fine")
        return NOT_RUN
    return _run("cargo", "deny", "check", "advisories")


def pip() -> int:
    """Look up what the virtual environment holds."""
    beside = Path(sys.executable).with_name("pip-audit")
    tool = str(beside) if beside.exists() else shutil.which("pip-audit")
    if tool is None:
        print("pip-audit was not found: `.venv/bin/pip install pip-audit` installs it")
        return NOT_RUN
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as installed:
        frozen = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
        subprocess.run(frozen, stdout=installed, check=True)
        audit = [tool, "--progress-spinner=off", "--no-deps", "--disable-pip", "-r", installed.name]
        result = subprocess.run(audit, text=True, capture_output=True, check=False)
    print(result.stdout + result.stderr, end="")
    if result.returncode != 0 and "known vulnerabilit" not in result.stderr:
        print("pip-audit got no answer from its database")
        return NOT_RUN
    return result.returncode


def _run(*command: str) -> int:
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit({"cargo": cargo, "pip": pip}[sys.argv[1]]())
