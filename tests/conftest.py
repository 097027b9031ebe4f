"""Fixtures for every test: a real server, an own server, names that no other test uses."""

import os
import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import hypothesis
import pytest

from tests.servers import NatsServer

# What runs the tests may ignore these, as `nohup` and a shell's background jobs do. The processes
# that tests start would ignore them, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# The machine may be busy: a slow example is no failure, and the same examples run everywhere.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")
# `make fuzz`
hypothesis.settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=int(os.environ.get("CASES", "100000")),
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests; a test may not stop it (`own_server` is there for that)."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def no_outbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is as in a project without the outbox, unless it asks for `outbox`."""
    if "outbox" not in request.fixturenames:
        # Not by its dotted path: `nats_consumer.publish` is the function there.
        monkeypatch.setattr(import_module("nats_consumer.publish.on_commit"), "_store", None)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A running server for one test, which may stop, kill and restart it."""
    server = NatsServer(tmp_path / "own")
    server.folder.mkdir()
    server.start()
    yield server
    if server.is_running:
        server.stop()


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """`fresh("orders")` is a name that no other test has, for a stream, a durable or a subject.

    One token, also to a ConsumerHandler, to which `_` and `-` separate."""
    return lambda word: f"{word}{uuid4().hex[:8]}"
