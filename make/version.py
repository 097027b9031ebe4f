"""`make version`: print the version, and with TAG in the environment everything that a release of
that tag still lacks."""

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from steps import ROOT

_STAGES = {"alpha": "a", "beta": "b", "rc": "rc"}
_STATUS = {"alpha": "3 - Alpha", "beta": "4 - Beta", "rc": "4 - Beta"}
_STABLE = "5 - Production/Stable"
# The files that repeat the version, and what stands there.
_LOCKED = 'name = "nats-consumer"\nversion = "{cargo}"'
_REPEATED = {
    "README.md": "({python})",
    "engine/README.md": 'nats-consumer = "{cargo}"',
    "Cargo.lock": _LOCKED,
    "bench/native/Cargo.lock": _LOCKED,
}


def main() -> int:
    """Print the version and the problems; return 1 if there are any."""
    package = _read("Cargo.toml")["workspace"]["package"]
    crates = [_read(f"{crate}/Cargo.toml")["package"] for crate in ("engine", "bridge")]
    if not all("repository" in crate for crate in crates):
        package.pop("repository", None)
    version = python_version(package["version"])
    print(version)
    if not (tag := os.environ.get("TAG")):
        return 0
    changelog = (ROOT / "CHANGELOG.md").read_text()
    found = problems(tag, package, _read("pyproject.toml")["project"], changelog)
    found += [f"{name} has another version." for name in outdated(package["version"])]
    for problem in found:
        print(problem)
    return 1 if found else 0


def python_version(version: str) -> str:
    """The version as Python writes it: 3.0.0-beta.1 is 3.0.0b1."""
    number, _, stage = version.partition("-")
    word, _, count = stage.partition(".")
    return f"{number}{_STAGES[word]}{count}" if word else number


def outdated(version: str, root: Path = ROOT) -> list[str]:
    """Return the files that do not repeat `version`, which is written as Cargo does."""
    return [
        name
        for name, text in _REPEATED.items()
        if text.format(cargo=version, python=python_version(version))
        not in (root / name).read_text()
    ]


def problems(
    tag: str, package: dict[str, Any], project: dict[str, Any], changelog: str
) -> list[str]:
    """Return what a release of `tag` lacks; `package` is Cargo's table, `project` Python's."""
    version = python_version(package["version"])
    stage = package["version"].partition("-")[2].partition(".")[0]
    status = f"Development Status :: {_STATUS.get(stage, _STABLE)}"
    heading = rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$"
    missing = {
        f"The tag is {tag}, but Cargo.toml has the version {version}.": tag != f"v{version}",
        f"CHANGELOG.md has no heading `## {version} (YYYY-MM-DD)`.": not re.search(
            heading, changelog, re.MULTILINE
        ),
        f"pyproject.toml lacks the classifier `{status}`.": status not in project["classifiers"],
        "The crates have no `repository`: uncomment it in the three Cargo.toml.": not package.get(
            "repository"
        ),
    }
    return [sentence for sentence, is_missing in missing.items() if is_missing]


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text())


if __name__ == "__main__":
    sys.exit(main())
