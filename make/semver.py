"""`make semver`: compare the public interface of the crate with that of its last release.

SINCE=revision in the environment compares with that revision. What could not be compared is said,
and ends as `NOT_RUN`: no release, or no cargo-semver-checks.
"""

import os
import shutil
import subprocess
import sys
import tomllib

from steps import NOT_RUN, ROOT

CRATE = "nats-consumer"
# Not `fips`, which needs tools of its own and adds nothing to the interface.
FEATURES = "nkeys,ring,testing,websockets"
# As the tool says it.
_BREAKS = "semver requires new major version"
INSTALL = "cargo install --locked cargo-semver-checks"


def main() -> int:
    """Return the exit code of the comparison."""
    since = os.environ.get("SINCE") or last_release()
    if since is None:
        print(f"No release to compare with: {why_none()}. {CRATE} was not compared.")
        return NOT_RUN
    if shutil.which("cargo-semver-checks") is None:
        print(f"cargo-semver-checks was not found: `{INSTALL}` installs it. Nothing was compared.")
        return NOT_RUN
    print(f"Comparing {CRATE} with {since}.", flush=True)
    command = ["cargo", "semver-checks", "--package", CRATE, "--baseline-rev", since]
    command += ["--only-explicit-features", "--features", FEATURES]
    if "-" in version():
        return _list_breaks(command)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def version() -> str:
    """The version of the crate, as cargo writes it."""
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    return str(cargo["workspace"]["package"]["version"])


def _list_breaks(command: list[str]) -> int:
    """Compare as a stable release would be: by itself the tool checks nothing between pre-releases,
    which may break the interface. What breaks is listed and is no failure."""
    command = [*command, "--release-type=minor"]
    found = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    print(found.stdout + found.stderr)
    if found.returncode and _BREAKS in found.stderr:
        print(f"{version()} is a pre-release and may break this; CHANGELOG.md has to say it.")
        return 0
    return found.returncode


def last_release() -> str | None:
    """The tag of the last release before this commit; a tag on it is the release to be made."""
    command = ["git", "describe", "--tags", "--abbrev=0", "--match=v[0-9]*", "HEAD^"]
    found = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    return found.stdout.strip() or None


def why_none() -> str:
    """Why there is no tag of a release."""
    command = ["git", "rev-parse", "--is-shallow-repository"]
    shallow = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    if shallow.stdout.strip() == "true":
        return "this clone lacks the history (`git fetch --tags --unshallow` gets it)"
    return "no tag v* is before this commit (SINCE=revision compares with any other)"


if __name__ == "__main__":
    sys.exit(main())
