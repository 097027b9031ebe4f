"""Ask cargo-deny or pip-audit about our dependencies, where the tool and its database are there.

What nobody was asked about is said, and is not passed off as free of vulnerabilities: a tool that
is missing, or a database that does not answer, ends as `NOT_RUN`, which is no failure of ours.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from steps import NOT_RUN, ROOT

_INSTALLS = {
    "cargo-deny": "cargo install cargo-deny",
    "pip-audit": ".venv/bin/pip install --group audit",
}


def deny() -> int:
    """Check licences, bans and sources by deny.toml, which needs no database."""
    if (tool := _found("cargo-deny")) is None:
        return NOT_RUN
    return _run(tool, "check", "bans", "licenses", "sources")


def cargo() -> int:
    """Look up the Rust dependencies in RustSec's database."""
    if (tool := _found("cargo-deny")) is None:
        return NOT_RUN
    if _run(tool, "fetch", "db") != 0:
        print("the advisory database could not be fetched: no Rust dependency was looked up")
        return NOT_RUN
    return _run(tool, "check", "advisories")


def pip() -> int:
    """Look up what the virtual environment holds."""
    if (tool := _found("pip-audit")) is None:
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


def _found(tool: str) -> str | None:
    """Return the path of a tool, in our environment or on PATH. Print a line if it is nowhere."""
    beside = Path(sys.executable).parent
    found = shutil.which(tool, path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        print(f"{tool} was not found: `{_INSTALLS[tool]}` installs it")
    return found


def _run(*command: str) -> int:
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit({"deny": deny, "cargo": cargo, "pip": pip}[sys.argv[1]]())
