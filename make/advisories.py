"""Ask cargo-deny or pip-audit about our dependencies, where the tool and its database are there.

What nobody was asked about is said, and is not passed off as free of vulnerabilities: a tool that
is missing, or a database that does not answer, ends as `NOT_RUN`, which is no failure of ours.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from steps import NOT_RUN, ROOT

_NO_CARGO_DENY = "cargo-deny was not found: `cargo install cargo-deny` installs it"


def deny() -> int:
    """Check licences, bans and sources by deny.toml, which needs no database."""
    if not shutil.which("cargo-deny"):
        print(_NO_CARGO_DENY)
        return NOT_RUN
    return _run("cargo", "deny", "check", "bans", "licenses", "sources")


def cargo() -> int:
    """Look up the Rust dependencies in RustSec's database."""
    if not shutil.which("cargo-deny"):
        print(_NO_CARGO_DENY)
        return NOT_RUN
    if _run("cargo", "deny", "fetch", "db") != 0:
        print("the advisory database could not be fetched: no Rust dependency was looked up")
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
        frozen = [sys.executable, "-m", "pip", "freeze", "--exclude=django-nats-consumer"]
        subprocess.run(frozen, stdout=installed, check=True)
        audit = [tool, "--progress-spinner=off", "--no-deps", "--disable-pip", "--format=json"]
        result = subprocess.run(
            [*audit, "-r", installed.name], text=True, capture_output=True, check=False
        )
    try:
        packages = json.loads(result.stdout)["dependencies"]
    except ValueError:
        print(f"{result.stderr}pip-audit got no answer from its database")
        return NOT_RUN
    return judge(packages)


def judge(packages: list[dict[str, Any]]) -> int:
    """Print what pip-audit found; return 1 for a vulnerability, `NOT_RUN` if it knew no package."""
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    known = len(packages) - len(unknown)
    found = [(package, each) for package in packages for each in package.get("vulns", ())]
    for package, each in found:
        fixed = ", ".join(each["fix_versions"]) or "no release yet"
        print(f"{package['name']} {package['version']}: {each['id']}, fixed in {fixed}")
    if unknown:
        print(f"the database knows nothing of {len(unknown)} packages: {', '.join(unknown)}")
    print(f"{known} of {len(packages)} packages were looked up, {len(found)} vulnerabilities")
    if found:
        return 1
    return 0 if known else NOT_RUN


def _run(*command: str) -> int:
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit({"deny": deny, "cargo": cargo, "pip": pip}[sys.argv[1]]())
