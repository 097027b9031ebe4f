"""Fixtures for tests against a real server: settings that name it, a stream, the command."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from nats_consumer import get_nats_client
from nats_consumer.declare import registry
from tests.live.support.project import Project
from tests.live.support.stage import Stage
from tests.servers import NatsServer

# The server lists all streams whenever a test asks for one: 300 of them take 30 ms of its time.
MANY_STREAMS = 20


@pytest.fixture(autouse=True)
def connected(settings: Settings, nats_server: NatsServer) -> Iterator[None]:
    """Django's settings name the tests' server, where earlier tests have left few streams."""
    settings.NATS_CONSUMER = {"connect_args": {"servers": [nats_server.url]}}
    yield
    if nats_server.stream_count() > MANY_STREAMS:
        nats_server.delete_streams()


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of `async def` tests; a file that tests both loops overrides it."""
    return "asyncio"


@pytest.fixture
def stream_name(fresh: Callable[[str], str]) -> str:
    """The name of the stage's stream; a file that needs another kind of name overrides it."""
    return fresh("orders")


@pytest.fixture
async def stage(
    nats_server: NatsServer, stream_name: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """A stream of its own for one test, and a registry for the classes that it declares."""
    monkeypatch.setattr(registry, "_declared", {})
    async with await get_nats_client() as client:
        await client.jetstream().add_stream(name=stream_name, subjects=[f"{stream_name}.>"])
        yield Stage(stream_name, client, nats_server)


@pytest.fixture
def exact_start() -> None:
    """Python itself starts each command of the test's projects, not a fork server: for tests of
    what a process holds, of its own forks and of its end."""


@pytest.fixture
def make_project(
    request: pytest.FixtureRequest, nats_server: NatsServer, tmp_path: Path
) -> Iterator[Callable[..., Project]]:
    """`make_project("...the text of consumers.py...")` writes a project that uses the tests'
    server, or the one at `url`. What of it still runs at the end of the test is killed."""
    projects: list[Project] = []
    forks = "exact_start" not in request.fixturenames

    def make(consumers: str | None = None, url: str = nats_server.url) -> Project:
        folder = tmp_path / f"project{len(projects)}"
        projects.append(Project(folder, url, consumers, forks=forks))
        return projects[-1]

    yield make
    for project in projects:
        project.end()


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Callable[[str], NatsServer]]:
    """`configured(text)` is a server of this test with this configuration, running."""
    servers: list[NatsServer] = []

    def start(text: str) -> NatsServer:
        folder = tmp_path / "secured"
        folder.mkdir()
        (folder / "server.conf").write_text(text)
        servers.append(NatsServer(folder, ["-c", str(folder / "server.conf")]))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
