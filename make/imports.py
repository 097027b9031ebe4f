"""Check who may import whom, in the Python package and in the bridge. The engine's rules are in
engine/tests/architecture.rs.

The package has contracts: [tool.importlinter] in pyproject.toml. import-linter reads Python sources
and would not see an import of the compiled `_native`. So it is shown a copy of the package in which
an empty `_native.py` stands in.

In the bridge, imports between rooms (the files and folders of bridge/src) go down only.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path("python/nats_consumer")
BRIDGE = Path("bridge/src")

_COMMENT = re.compile(r"^\s*//.*$", re.MULTILINE)
_IMPORT = re.compile(r"\bcrate::(\w+|\{[^;]*\})")
_FIRST_NAME = re.compile(r"(?:^|,)\s*(\w+)")
_INNER_GROUP = re.compile(r"\{[^{}]*\}")


def main() -> int:
    """Check both; return 0, or 1 if something imports what it may not."""
    circle = circle_in(rooms(BRIDGE))
    if circle:
        print(f"{BRIDGE}: these rooms import each other in a circle: {' -> '.join(circle)}")
    return 1 if circle or _package_is_broken() else 0


def rooms(folder: Path) -> dict[str, set[str]]:
    """The files and folders of a crate's sources, without lib.rs, each with those it imports."""
    names = {path.stem for path in folder.iterdir()} - {"lib"}
    found: dict[str, set[str]] = {name: set() for name in names}
    for path in folder.rglob("*.rs"):
        name = path.relative_to(folder).parts[0].removesuffix(".rs")
        if name in found:
            found[name] |= {each for each in imports(path.read_text()) if each in names - {name}}
    return found


def imports(source: str) -> Iterator[str]:
    """The first name of every path that begins with `crate::`."""
    for path in _IMPORT.findall(_COMMENT.sub("", source)):
        if path.startswith("{"):
            group = path[1:-1]
            while _INNER_GROUP.search(group):
                group = _INNER_GROUP.sub("", group)
            yield from _FIRST_NAME.findall(group)
        else:
            yield path


def circle_in(imported: dict[str, set[str]]) -> list[str]:
    """The names of one circle, the first one at its end again; empty if there is none."""
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]
    return []


def _package_is_broken() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, PACKAGE.name)
        shutil.copytree(
            PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "*.pyi", "__pycache__")
        )
        (copy / "_native.py").touch()
        checked = subprocess.run(
            [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
            env={**os.environ, "PYTHONPATH": folder},
            check=False,
        )
        return checked.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
