"""pytest fixtures. In the conftest.py beside your pytest.ini or pyproject.toml:

pytest_plugins = ["nats_consumer.testing.fixtures"]
"""

from collections.abc import Iterator

import pytest

from .capture import Published, capture_published, outbox
from .nats import Nats


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


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers", "nats(consumers, streams): what the fixture `nats` has; see Nats"
    )
