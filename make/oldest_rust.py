"""Check that no crate below the engine needs a newer Rust than the engine says it does.

For the code itself clippy's `incompatible_msrv` looks; the CI workflow compiles with that Rust.
"""

import json
import subprocess
import sys
from typing import Any

from steps import ROOT

CRATE = "nats-consumer"
FEATURES = [f"{CRATE}/{feature}" for feature in ("aws-lc-rs", "testing", "websockets")]


def main() -> int:
    """Print the crates that need a newer Rust, and return 1 if there are any."""
    metadata = ["cargo", "metadata", "--format-version=1", "--locked"]
    features = ["--features", ",".join(FEATURES)]
    found = subprocess.run([*metadata, *features], cwd=ROOT, check=True, capture_output=True)
    return judge(json.loads(found.stdout))


def judge(metadata: dict[str, Any]) -> int:
    """Compare what each crate below the engine needs with what the engine promises."""
    packages = {package["id"]: package for package in metadata["packages"]}
    [engine] = [package for package in packages.values() if package["name"] == CRATE]
    promised = _number(engine["rust_version"])
    below = [packages[each] for each in _below(engine["id"], metadata["resolve"]["nodes"])]
    newer = [each for each in below if _number(each["rust_version"] or "1.0") > promised]
    for package in newer:
        print(f"{package['name']} {package['version']} needs Rust {package['rust_version']}")
    print(f"{len(newer)} of {len(below)} crates need more than Rust {engine['rust_version']}")
    return 1 if newer or not below else 0


def _below(root: str, nodes: list[dict[str, Any]]) -> set[str]:
    """Return the packages that `root` is built with, without those that only tests need."""
    dependencies = {node["id"]: node["deps"] for node in nodes}
    found: set[str] = set()
    left = [root]
    while left:
        for dependency in dependencies[left.pop()]:
            kinds = {each["kind"] for each in dependency["dep_kinds"]}
            if kinds != {"dev"} and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                left.append(dependency["pkg"])
    return found


def _number(version: str) -> tuple[int, ...]:
    """1.89 and 1.89.0 are the same."""
    numbers = [int(part) for part in version.split(".")]
    return (*numbers, 0, 0)[:3]


if __name__ == "__main__":
    sys.exit(main())
