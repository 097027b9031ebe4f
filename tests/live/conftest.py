"""What tests against a real server may ask for: settings that name it, a stream, the command."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from pytest_django import Settings

from nats_consumer import get_nats_client
from tests.command import Command
from tests.live.stage import Stage
from tests.servers import NatsServer


@pytest.fixture(autouse=True)
def connected(settings: Settings, nats_server: NatsServer) -> None:
    """Django's settings name the tests' server."""
    settings.NATS_CONSUMER = {"connect_args": {"servers": [nats_server.url]}}


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of `async def` tests; a file that tests both loops overrides it."""
    return "asyncio"


@pytest.fixture
async def stage(nats_server: NatsServer, fresh: Callable[[str], str]) -> AsyncIterator[Stage]:
    """A stream of its own for one test."""
    name = fresh("orders")
    async with await get_nats_client() as client:
        await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
        yield Stage(name, client, nats_server)


@pytest.fixture
def run_command(nats_server: NatsServer) -> Iterator[Callable[..., Command]]:
    """`run_command("OrderConsumer", "--setup", STREAM="orders")` starts `manage.py nats_consumer`.

    Capitals go into its environment, which tests/project/settings.py reads; `NATS_URL` names the
    tests' server if not told otherwise. What still runs at the end of the test is killed.
    """
    started: list[Command] = []

    def start(*arguments: str, **environment: str) -> Command:
        defaults = {
            "DJANGO_SETTINGS_MODULE": "tests.project.settings",
            "NATS_URL": nats_server.url,
        }
        started.append(Command(*arguments, environment={**defaults, **environment}))
        return started[-1]

    yield start
    for command in started:
        command.end()
