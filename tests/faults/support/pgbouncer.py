"""A PgBouncer in transaction mode before a PostgreSQL, if this machine has one."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.support.postgres import Postgres
from tests.waiting import eventually

START_TIMEOUT = 30
CONFIGURATION = """
[databases]
postgres = host=127.0.0.1 port={server} dbname=postgres user=shop

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
ignore_startup_parameters = extra_float_digits
{user}
"""


def program() -> str | None:
    """The path of the program, which Debian keeps off the PATH of users."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class PgBouncer:
    """A pooler: each transaction gets any of its connections."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self._folder.chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        # It refuses to run as root, and changes to another user itself.
        user = "user = nobody" if os.getuid() == 0 else ""
        text = CONFIGURATION.format(server=postgres.port, port=self.port, user=user)
        (self._folder / "pgbouncer.ini").write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def settings(self) -> dict[str, Any]:
        """Return its entry in Django's DATABASES."""
        return self._postgres.settings(PORT=self.port, DISABLE_SERVER_SIDE_CURSORS=True)

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(
            [program() or "", self._folder / "pgbouncer.ini"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._listens, START_TIMEOUT)

    def end(self) -> None:
        """Stop it for good."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=START_TIMEOUT)
        shutil.rmtree(self._folder)

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0
