"""nats-servers that can be frozen, and three of them as one cluster."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.servers import NatsServer
from tests.waiting import eventually

ELECTION = 40


class Node(NatsServer):
    """A nats-server that can be frozen. One of a cluster starts without waiting for the others."""

    def __init__(self, folder: Path, options: tuple[str, ...] = (), alone: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, options)
        self._alone = alone

    @classmethod
    def configured(cls, folder: Path, config: str) -> Self:
        """One with the text of a configuration file, which it keeps in its folder."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "server.conf"
        file.write_text(config)
        return cls(folder, ("-c", str(file)))

    def reload(self, config: str) -> None:
        """Change the configuration of a configured one while it runs."""
        (self.folder / "server.conf").write_text(config)
        self._signal(signal.SIGHUP)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The process is stopped meanwhile: connections stay, and nobody answers."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def lame_duck(self) -> None:
        """As an operator does before an upgrade: clients are sent away one by one, then it ends."""
        self._signal(signal.SIGUSR2)

    @property
    def is_ready(self) -> bool:
        """Whether it runs, JetStream answers, and what it has of the streams is current."""
        return self.is_running and super()._is_healthy()

    def varz(self) -> dict[str, Any]:
        """Return the server's own figures: `connections`, `total_connections`, ..."""
        return dict(self._monitor("/varz"))

    def _is_healthy(self) -> bool:
        return not self._alone or super()._is_healthy()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


class Cluster:
    """Three nodes on loopback."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(3)
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
        self.nodes = {
            f"n{number}": Node(
                folder / f"n{number}",
                (
                    *("-n", f"n{number}", "--cluster_name", "faults", "--no_advertise"),
                    *("--cluster", f"nats://127.0.0.1:{port}", "--routes", routes),
                ),
                alone=False,
            )
            for number, port in enumerate(ports, 1)
        }

    @property
    def urls(self) -> list[str]:
        """Return the addresses for clients."""
        return [node.url for node in self.nodes.values()]

    def start(self) -> None:
        """Start the nodes that do not run, and wait until all of them are ready."""
        for node in self.nodes.values():
            if not node.is_running:
                node.start()
        eventually(lambda: all(node.is_ready for node in self.nodes.values()), ELECTION)

    def end(self) -> None:
        """Take all nodes away."""
        for node in self.nodes.values():
            if node.is_running:
                node.kill()


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
