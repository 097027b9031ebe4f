"""State of the embedded server, as the file `server.json` of its store says."""

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from nats_consumer.exceptions import Unreachable

FREE_PORT = -1

# How long a starting server may take before it is reported as slow.
START_TIMEOUT = 15.0
# How long a server that is alive may take to listen: it reads its whole store first.
RECOVERY_TIMEOUT = 600.0
STOP_TIMEOUT = 10.0
POLL_INTERVAL = 0.02


@dataclass(frozen=True)
class State:
    """The running server, as `server.json` describes it.

    Each supervisor creates a new name, and the server tells it to every client: a state
    file that a crash left behind is known by it, even where its port or pid has a new owner.
    """

    url: str
    pid: int
    name: str

    @classmethod
    def read(cls, store: Path) -> Self | None:
        """Return what the store says, or None where it says nothing that makes sense."""
        try:
            fields = json.loads((store / "server.json").read_text())
            return cls(url=str(fields["url"]), pid=int(fields["pid"]), name=str(fields["name"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, store: Path) -> None:
        """Write it to `server.json`, as a whole."""
        draft = store / "server.json.draft"
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(store / "server.json")

    @property
    def port(self) -> int:
        """The port of the URL."""
        return urlsplit(self.url).port or FREE_PORT

    def answers(self) -> bool:
        """Whether a nats-server of this name answers at the URL."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                greeting = connection.makefile("rb").readline(65_536)
            return bool(json.loads(greeting.removeprefix(b"INFO "))["server_name"] == self.name)
        except (OSError, OverflowError, ValueError, KeyError, TypeError):
            return False


def not_started(store: Path, why: str) -> Unreachable:
    """The error of a server that did not start."""
    return Unreachable(
        f"The embedded NATS server did not start: {why}. Its log is {store / 'server.log'}."
    )
