"""Interpreters with the packages of each contestant, made on first use."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BENCH = ROOT / "bench"
_NATIVE = BENCH / "native"
_NATIVE_TARGET = ROOT / "target" / "bench"
_NEWEST = ("3.14", "3.13", "3.12")
_PACKAGES = (
    "django",
    "oxnats",
    "nats-py",
    "nats-jetstream",
    "nats-core",
    "natsrpy",
    "faststream",
    "taskiq",
    "taskiq-nats",
    "celery",
    "redis",
    "psycopg",
    "uvloop",
)
_SHOW_VERSIONS = """
import importlib.metadata as m, json, platform, sys
found = {d.metadata["Name"].lower(): d.version for d in m.distributions()}
print(json.dumps({"python": platform.python_version(),
                  **{n: found[n] for n in sys.argv[1:] if n in found}}))
"""


class NotAvailable(Exception):
    """An environment that cannot be made on this machine, and why."""


@dataclass(frozen=True)
class Environment:
    """How to start a contestant: what comes before its module or verb, and its variables."""

    command: tuple[str, ...]
    variables: dict[str, str]
    versions: dict[str, str]

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a contestant in a session of its own, with pipes."""
        return subprocess.Popen(
            [*self.command, *arguments],
            cwd=BENCH,
            env={**_plain_environment(), **self.variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


@cache
def environment(name: str) -> Environment:
    """The environment called "project", "newest", "peers" or "native". Raises NotAvailable."""
    return {"project": _project, "newest": _newest, "peers": _peers, "native": _native}[name]()


def _native() -> Environment:
    """The publishers and consumers in Rust, built in release mode."""
    print("Building bench/native ...", flush=True)
    built = subprocess.run(
        ["cargo", "build", "--release", "--quiet"],
        cwd=_NATIVE,
        env={**os.environ, "CARGO_TARGET_DIR": str(_NATIVE_TARGET)},
        check=False,
    )
    if built.returncode != 0:
        raise NotAvailable("bench/native does not build")
    return Environment((str(_NATIVE_TARGET / "release" / "bench-native"),), {}, _crates())


def _project() -> Environment:
    # Not the environment of development: a database's driver is nothing that it needs.
    python = _virtual_environment("project", sys.executable, "requirements-project.txt")
    # Before an installed copy: it is this checkout that is measured.
    return _python(python, {"PYTHONPATH": str(ROOT / "python")})


def _newest() -> Environment:
    # The extension module is built for the stable ABI: the same file runs on every Python.
    python = _virtual_environment("newest", _newest_python(), "requirements-newest.txt")
    return _python(python, {"PYTHONPATH": str(ROOT / "python")})


def _peers() -> Environment:
    python = _virtual_environment("peers", sys.executable, "requirements-peers.txt")
    # Celery does not run as root without it, lest somebody send it pickles: ours is JSON.
    return _python(python, {"C_FORCE_ROOT": "1"})


def _python(python: str, variables: dict[str, str]) -> Environment:
    shown = subprocess.check_output([python, "-c", _SHOW_VERSIONS, *_PACKAGES], text=True)
    return Environment((python, "-m"), variables, json.loads(shown))


def _newest_python() -> str:
    for wanted in _NEWEST:
        found = subprocess.run(
            [ROOT / "make" / "find-python", wanted], text=True, capture_output=True, check=False
        )
        if found.returncode == 0:
            return found.stdout.strip()
    raise NotAvailable("no Python newer than 3.11 was found")


def _virtual_environment(name: str, base: str, requirements: str) -> str:
    folder = BENCH / ".venv" / name
    python, wanted, done = folder / "bin/python", BENCH / requirements, folder / ".installed"
    if not done.exists() or done.stat().st_mtime < wanted.stat().st_mtime:
        print(f"Installing {requirements} into bench/.venv/{name} ...", flush=True)
        made = [[base, "-m", "venv", "--clear", str(folder)], [str(python), "-m", "pip", "install"]]
        made[1] += ["--quiet", "--requirement", str(wanted)]
        for command in made:
            if subprocess.run(command, check=False).returncode != 0:
                raise NotAvailable(f"{requirements} could not be installed")
        done.touch()
    return str(python)


def _crates() -> dict[str, str]:
    rustc = subprocess.check_output(["rustc", "--version"], text=True).split()[1]
    lock = (_NATIVE / "Cargo.lock").read_text()
    version = lock.partition('name = "async-nats"\nversion = "')[2].partition('"')[0]
    return {"rustc": rustc, "async-nats": version}


def _plain_environment() -> dict[str, str]:
    unwanted = ("PYTHON", "VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE", "MAKE", "CARGO")
    return {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
