"""A real PostgreSQL on loopback, if this machine has one."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.waiting import eventually

TABLE = 'CREATE TABLE orders_effect (id bigserial, consumer varchar, "order" varchar)'
START_TIMEOUT = 30


def binaries() -> Path | None:
    """The folder of `initdb`, `postgres` and `psql`, or None."""
    found = shutil.which("initdb")
    # Debian keeps them off the PATH.
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = Path(found).resolve() if found else next(reversed(debian), None)
    return initdb.parent if initdb else None


class Postgres:
    """A server with a cluster of its own."""

    def __init__(self, binaries: Path) -> None:
        # Not among pytest's folders, which are root's alone where root runs it.
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._give_away()
        self._call("initdb", "-D", str(self._folder / "data"), "-U", "shop", "-A", "trust", "-N")

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return its entry in Django's DATABASES."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": self.port,
            "USER": "shop",
            "NAME": "postgres",
            **more,
        }

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(self._folder), "-F"]
        self._process = subprocess.Popen(
            [self._binaries / "postgres", "-D", self._folder / "data", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **_unprivileged(),
        )
        eventually(self._answers, START_TIMEOUT)

    def restart(self) -> None:
        """End every connection at once, as a fast shutdown does, and start again."""
        self.stop()
        self.start()

    def end(self) -> None:
        """Stop it for good."""
        self.stop()
        shutil.rmtree(self._folder)

    def stop(self) -> None:
        """End every connection at once, and the server."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=START_TIMEOUT)

    def query(self, text: str) -> list[list[str]]:
        """The rows of a query."""
        answer = self._psql(text)
        assert answer.returncode == 0, answer.stderr
        return [line.split("|") for line in answer.stdout.splitlines()]

    def _answers(self) -> bool:
        return self._psql("SELECT 1").returncode == 0

    def _psql(self, text: str) -> subprocess.CompletedProcess[str]:
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "shop", "postgres"]
        command = [self._binaries / "psql", *where, "-X", "-A", "-t", "-c", text]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def _call(self, program: str, *arguments: str) -> None:
        command = [self._binaries / program, *arguments]
        subprocess.run(command, check=True, capture_output=True, **_unprivileged())

    def _give_away(self) -> None:
        if user := _unprivileged().get("user"):
            shutil.chown(self._folder, user)


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    return {"user": "postgres" if "postgres" in names else "nobody", "cwd": "/"}
