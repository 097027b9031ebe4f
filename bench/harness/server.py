"""A nats-server of the harness's own, and its word on streams and consumers."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

from nats_consumer import _native
from nats_consumer.connect.options import ConnectOptions

_START_SECONDS = 20.0
_REQUEST_SECONDS = 30.0


class Server:
    """A nats-server with JetStream on a file store, on loopback and a port that it chooses; a
    context manager."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        """`options` are more of its command line's."""
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="nats-bench-")
        self._process: subprocess.Popen[bytes] | None = None
        self._runner = asyncio.Runner()
        self.url = ""

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._runner.close()
        self._folder.cleanup()

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return int(self.url.rpartition(":")[2])

    def start(self, port: int = -1) -> None:
        """Start it with what it has stored; it chooses the port if none is given."""
        folder = self._folder.name
        listen = ["-a", "127.0.0.1", "-p", str(port), "-m", "-1", "--ports_file_dir", folder]
        self._process = subprocess.Popen(
            [
                *(_binary(), *listen, "-js", "-sd", folder, "-l", f"{folder}/server.log"),
                *self._options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ports = self._wait_for_ports()
        self.url, self._monitor = str(ports["nats"][0]), str(ports["monitoring"][0])
        self._connection = self._runner.run(_connect(self.url))

    def stop(self) -> None:
        """End it; what it has stored stays."""
        assert self._process is not None
        self._runner.run(_close(self._connection))
        self._process.terminate()
        self._process.wait(timeout=_START_SECONDS)

    def connections(self) -> int:
        """How many clients are connected, by its own count."""
        return int(self._page("varz")["connections"])

    def api_requests(self) -> int:
        """How many requests to the JetStream API it has had, by its own count."""
        return int(self._page("jsz")["api"]["total"])

    def make_stream(self, name: str, replicas: int = 1) -> None:
        """Create the stream `name` with the subjects `<name>.>` and a file store."""
        config = {
            "name": name,
            "subjects": [f"{name}.>"],
            "storage": "file",
            "retention": "limits",
            "num_replicas": replicas,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
        }
        self._api(f"STREAM.CREATE.{name}", config)

    def delete_stream(self, name: str) -> None:
        """Delete a stream and its consumers, if it exists."""
        try:
            self._api(f"STREAM.DELETE.{name}")
        except Exception as error:
            if type(error).__name__ != "StreamNotFound":
                raise

    def purge(self, name: str) -> None:
        """Delete the messages of a stream."""
        self._api(f"STREAM.PURGE.{name}")

    def messages(self, stream: str) -> int:
        """How many messages a stream holds."""
        state: dict[str, int] = self._api(f"STREAM.INFO.{stream}")["state"]
        return state["messages"]

    def consumers(self, stream: str) -> int:
        """How many consumers a stream has."""
        state: dict[str, int] = self._api(f"STREAM.INFO.{stream}")["state"]
        return state["consumer_count"]

    def consumer(self, stream: str, durable: str) -> dict[str, Any] | None:
        """The server's consumer info; None if there is no such durable."""
        try:
            return self._api(f"CONSUMER.INFO.{stream}.{durable}")
        except Exception as error:
            if type(error).__name__ == "ConsumerGone":
                return None
            raise

    def delete_consumer(self, stream: str, durable: str) -> None:
        """Delete a durable, if it exists."""
        if self.consumer(stream, durable):
            self._api(f"CONSUMER.DELETE.{stream}.{durable}")

    def _api(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        payload = b"" if body is None else json.dumps(body).encode()
        answer: dict[str, Any] = json.loads(self._runner.run(self._ask(subject, payload)))
        return answer

    async def _ask(self, subject: str, payload: bytes) -> bytes:
        return await self._connection.api(subject, payload, _REQUEST_SECONDS)

    def _page(self, name: str) -> dict[str, Any]:
        address = f"{self._monitor}/{name}"
        with urlopen(address, timeout=_REQUEST_SECONDS) as answer:  # noqa: S310 -- our own server
            page: dict[str, Any] = json.load(answer)
        return page

    def _wait_for_ports(self) -> dict[str, list[str]]:
        deadline = time.monotonic() + _START_SECONDS
        ports = Path(self._folder.name, f"nats-server_{self.pid}.ports")
        while time.monotonic() < deadline:
            try:
                found: dict[str, list[str]] = json.loads(ports.read_text())
                return found
            except (FileNotFoundError, json.JSONDecodeError):
                time.sleep(0.02)
        raise TimeoutError(f"nats-server did not start within {_START_SECONDS:g} s")


def is_settled(info: dict[str, Any] | None, messages: int) -> bool:
    """Whether the durable has delivered `messages` and none of them is open."""
    return (
        info is not None
        and info["delivered"]["consumer_seq"] >= messages
        and info["num_pending"] == 0
        and info["num_ack_pending"] == 0
    )


def seconds_to_settle(info: dict[str, Any]) -> float:
    """From the creation of the durable to the last acknowledgement, by the server's clock."""
    return (_time(info["ack_floor"]["last_active"]) - _time(info["created"])).total_seconds()


def version() -> str:
    """Return the version that `nats-server --version` prints, such as "2.15.1"."""
    printed = subprocess.check_output([_binary(), "--version"], text=True)
    return printed.rpartition("v")[2].strip()


async def _connect(url: str) -> _native.Connection:
    return await _native.connect(ConnectOptions(servers=[url], name="bench"))


async def _close(connection: _native.Connection) -> None:
    await connection.close()


def _binary() -> str:
    return str(Path(sys.executable).with_name("nats-server"))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
