"""A real MariaDB on a socket, if this machine has one."""

import getpass
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.waiting import eventually

START_TIMEOUT = 30
PROGRAMS = ("mariadbd", "mariadb-install-db")


def program(name: str) -> str | None:
    """The path of a program of MariaDB's. Debian keeps the server off the PATH of users."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


class MariaDB:
    """A server with data of its own."""

    def __init__(self) -> None:
        # A path of a socket has at most 107 bytes: not among pytest's folders.
        self._folder = Path(tempfile.mkdtemp(prefix="mariadb-"))
        self._socket = self._folder / "socket"
        self._process: subprocess.Popen[bytes] | None = None
        self._data = [
            "--no-defaults",
            f"--datadir={self._folder / 'data'}",
            f"--user={getpass.getuser()}",
        ]
        install = [program("mariadb-install-db") or "", *self._data, "--skip-test-db"]
        subprocess.run(
            [*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True
        )

    def settings(self) -> dict[str, Any]:
        """Return its entry in Django's DATABASES."""
        return {
            "ENGINE": "tests.faults.support.pymysql_backend",
            "HOST": str(self._socket),
            "USER": "root",
            "NAME": "shop",
        }

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [f"--socket={self._socket}", "--skip-networking", "--skip-log-bin"]
        self._process = subprocess.Popen(
            [program("mariadbd") or "", *self._data, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._answers, START_TIMEOUT)
        self._create_database()

    def end(self) -> None:
        """Stop it for good."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=START_TIMEOUT)
        shutil.rmtree(self._folder)

    def _create_database(self) -> None:
        import pymysql

        with pymysql.connect(unix_socket=str(self._socket), user="root") as connection:
            connection.cursor().execute("CREATE DATABASE shop")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0
