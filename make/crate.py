"""Test the crate as crates.io would have it: packaged, unpacked elsewhere, default features.

Neither the workspace nor the crate's own dev-dependency helps there, so a test that needs a feature
has to say so.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

from steps import ROOT

CRATE = "nats-consumer"


def main() -> int:
    """Return the exit code of the first command that failed, or 0."""
    package = ["cargo", "package", "--quiet", "--package", CRATE, "--no-verify", "--allow-dirty"]
    subprocess.run(package, cwd=ROOT, check=True)
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    name = f"{CRATE}-{version}"
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(ROOT / f"target/package/{name}.crate") as archive:
            archive.extractall(folder, filter="data")
        # Its dependencies are those of the workspace, mostly compiled already.
        environment = {**os.environ, "CARGO_TARGET_DIR": str(ROOT / "target")}
        for targets in (
            ["--lib", "--tests", "--examples", "--benches", "--no-run"],
            ["--lib"],
            ["--doc"],
        ):
            test = ["cargo", "test", *targets]
            ran = subprocess.run(test, cwd=Path(folder) / name, env=environment)
            if ran.returncode:
                return ran.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
