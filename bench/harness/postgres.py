"""A PostgreSQL of the harness's own, where this machine has one."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_START_SECONDS = 30.0
_POLL_SECONDS = 0.05


class Postgres:
    """A server on loopback with a cluster of its own, and the defaults of its distribution."""

    def __init__(self) -> None:
        """Start it. Raises FileNotFoundError where there is no `initdb`."""
        found = shutil.which("initdb")
        if found is None:
            raise FileNotFoundError("no PostgreSQL (initdb) was found")
        self._binaries = Path(found).resolve().parent
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-bench-"))
        if user := _unprivileged().get("user"):
            shutil.chown(self._folder, user)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = int(free.getsockname()[1])
        data = str(self._folder / "data")
        made = [self._program("initdb"), "-D", data, "-U", "bench", "-A", "trust"]
        subprocess.run(made, check=True, capture_output=True, **_unprivileged())
        options = ["-h", "127.0.0.1", "-p", str(self._port), "-k", str(self._folder)]
        self._process = subprocess.Popen(
            [self._program("postgres"), "-D", data, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **_unprivileged(),
        )
        self._wait_until_it_answers()

    @property
    def pid(self) -> int:
        """The process id of the server that forks the others."""
        return self._process.pid

    @property
    def version(self) -> str:
        """Such as "15.14"."""
        command = [self._program("postgres"), "--version"]
        printed = subprocess.check_output(command, text=True)
        return printed.partition(")")[2].split()[0]

    def settings(self) -> dict[str, Any]:
        """Return its entry in Django's DATABASES; connections are kept, as in production."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": self._port,
            "USER": "bench",
            "NAME": "postgres",
            "CONN_MAX_AGE": None,
        }

    def stop(self) -> None:
        """End it and remove its files."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=_START_SECONDS)
        shutil.rmtree(self._folder)

    def _program(self, name: str) -> str:
        return str(self._binaries / name)

    def _wait_until_it_answers(self) -> None:
        asking = [self._program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        deadline = time.monotonic() + _START_SECONDS
        while subprocess.run(asking, check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"PostgreSQL did not start within {_START_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    return {"user": "postgres" if "postgres" in names else "nobody", "cwd": "/"}
