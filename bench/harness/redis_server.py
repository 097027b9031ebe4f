"""A Redis of the harness's own, where this machine has one: what Celery takes its tasks from."""

import shutil
import socket
import subprocess
import tempfile
import time

_START_SECONDS = 20.0
_POLL_SECONDS = 0.02


class Redis:
    """A redis-server on loopback that keeps everything in memory and writes no file: the fastest
    that it can be, and less than what JetStream's file store promises."""

    def __init__(self) -> None:
        """Start it. Raises FileNotFoundError where there is none."""
        found = shutil.which("redis-server")
        if found is None:
            raise FileNotFoundError("no redis-server was found")
        self._binary = found
        self._folder = tempfile.TemporaryDirectory(prefix="redis-bench-")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = int(free.getsockname()[1])
        listen = ["--bind", "127.0.0.1", "--port", str(self._port), "--dir", self._folder.name]
        self._process = subprocess.Popen(
            [found, *listen, "--save", "", "--appendonly", "no"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait_until_it_listens()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Its first database."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def version(self) -> str:
        """Such as "7.0.15"."""
        printed = subprocess.check_output([self._binary, "--version"], text=True)
        return printed.partition("v=")[2].split()[0]

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(timeout=_START_SECONDS)
        self._folder.cleanup()

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
                return
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
