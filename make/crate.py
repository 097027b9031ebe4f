"""`make crate`: test the crate as crates.io would have it, packaged and unpacked elsewhere.

Neither the workspace nor the crate's own dev-dependency helps there, so a test that needs a feature
has to say so. Features that exclude the default ones are compiled and tested here alone.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

from steps import ROOT

CRATE = "nats-consumer"
TESTS = "http,websockets,testing,__fail-points"
# Other cryptography than `ring`, and nothing to sign with: TLS and WebSockets still work.
OTHERS = ["--no-default-features", "--features", f"aws-lc-rs,{TESTS}"]
FIPS = ["--no-default-features", "--features", f"fips,nkeys,{TESTS}"]
SECURED = ["--test", "live", "--", "websocket"]


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
        for arguments in runs():
            test = ["cargo", "test", *arguments]
            print(f"+ {' '.join(test)}", flush=True)
            ran = subprocess.run(test, cwd=Path(folder) / name, env=environment)
            if ran.returncode:
                return ran.returncode
    return 0


def runs() -> list[list[str]]:
    """The tests of the crate: with the default features, and with the others."""
    found = [
        ["--lib", "--tests", "--examples", "--benches", "--no-run"],
        ["--lib"],
        ["--doc"],
        [*OTHERS, "--lib"],
        [*OTHERS, *SECURED],
    ]
    missing = [tool for tool in ("cmake", "go") if shutil.which(tool) is None]
    if missing:
        print(f"The feature `fips` is not compiled: {' and '.join(missing)} not found.", flush=True)
    else:
        found.append([*FIPS, *SECURED])
    return found


if __name__ == "__main__":
    sys.exit(main())
