"""pytest fixtures. In the conftest.py beside your pytest.ini or pyproject.toml:

pytest_plugins = ["nats_consumer.testing.fixtures"]
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import pytest

from nats_consumer.connect.embedded import server_url

from .capture import Published, capture_published, outbox
from .nats import Nats
from .real import Worker, real_server, running

if TYPE_CHECKING:
    from nats_consumer.consumer import NatsConsumer


class RunWorker(Protocol):
    """The type of the fixture `nats_worker`."""

    def __call__(self, *consumers: "type[NatsConsumer]") -> AbstractContextManager[Worker]:
        """In the body, a worker runs the consumers."""


@pytest.fixture(autouse=True)
def _empty_outbox() -> None:
    outbox.clear()


@pytest.fixture
def nats(request: pytest.FixtureRequest) -> Iterator[Nats]:
    """A server in memory, and workers for the consumers of `@pytest.mark.nats(consumers=[...],
    streams=[...])`, by default for all of the project."""
    marker = request.node.get_closest_marker("nats")
    with Nats(**(marker.kwargs if marker else {})).in_use() as kit:
        yield kit


@pytest.fixture
def published() -> Iterator[list[Published]]:
    """The messages that the test publishes. None is sent."""
    with capture_published() as messages:
        yield messages


@pytest.fixture(scope="session")
def _nats_server_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return server_url(tmp_path_factory.mktemp("nats_server"))


@pytest.fixture
def nats_server(_nats_server_url: str) -> Iterator[str]:
    """The URL of a real server, which all connections of the settings are to. It runs until the
    end of the tests, and each test begins without streams. Needs the extra `server`."""
    with real_server(_nats_server_url) as url:
        yield url


@pytest.fixture
def nats_worker(nats_server: str) -> RunWorker:  # noqa: ARG001
    """Runs consumers in threads, on the real server:
    `with nats_worker(OrderConsumer) as worker: worker.wait(handled=1)`. It relays no outbox; the
    test says when: `call_command("nats_outbox", "relay", "--once")`."""
    return running


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers", "nats(consumers, streams): what the fixture `nats` has; see Nats"
    )
