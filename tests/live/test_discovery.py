"""Discovery of a cluster's servers by a client."""

from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from nats_consumer import get_nats_client
from tests.faults.support.nodes import free_ports
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


class Clustered(NatsServer):
    """A nats-server of a cluster, without JetStream."""

    def _store(self) -> list[str]:
        return ["-l", str(self.folder / "nats-server.log")]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[list[Clustered]]:
    """Two servers that tell their clients of one another."""
    ports = free_ports(2)
    servers = []
    for port, other in (ports, reversed(ports)):
        folder = tmp_path / str(port)
        folder.mkdir()
        cluster = ["--cluster_name", "two", "--cluster", f"nats://127.0.0.1:{port}"]
        servers.append(Clustered(folder, [*cluster, "--routes", f"nats://127.0.0.1:{other}"]))
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            if server.is_running:
                server.stop()


async def test_servers_of_the_cluster_are_discovered(two: list[Clustered]) -> None:
    here, there = (server.url.removeprefix("nats://") for server in two)
    async with await get_nats_client(servers=f"nats://me:secret@{here}") as client:
        await becomes_true(lambda: client.discovered_servers)
        theirs = await nats.connect(two[0].url)
        try:
            await becomes_true(lambda: theirs.discovered_servers)
            assert [url.netloc for url in theirs.discovered_servers] == [there]
        finally:
            await theirs.close()
        assert [url.netloc for url in client.discovered_servers] == [there]
        assert [url.netloc for url in client.servers] == [here, there]
        assert client.connected_url is not None
        assert client.connected_url.netloc == here
        assert "secret" not in "".join(client.servers)
