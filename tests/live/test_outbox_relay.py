"""`manage.py nats_outbox relay` ends in time, whatever it waits for."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from tests.command import Command
from tests.live.support.project import Project
from tests.servers import NatsServer
from tests.waiting import eventually

Away = Callable[[NatsServer], AbstractContextManager[None]]
# A relay may take 7 s, and the machine may be busy.
IN_TIME = 20
SETTINGS = """
INSTALLED_APPS = ["nats_consumer", "nats_consumer.contrib.outbox"]
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": {name!r},
        "OPTIONS": {{"timeout": 600}},
    }}
}}
"""
WRITER = """
import django

django.setup()

from nats_consumer import publish_on_commit

publish_on_commit("orders.created", b"1")
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "shop.sqlite3"


@pytest.fixture
def project(
    make_project: Callable[..., Project], own_server: NatsServer, database: Path
) -> Project:
    """A project with an outbox, whose table exists."""
    project = make_project(url=own_server.url)
    settings = (project.folder / "settings.py").read_text()
    project.write("settings.py", settings + SETTINGS.format(name=str(database)))
    project.write("writer.py", WRITER)
    assert project.run("manage.py", "migrate").finish() == 0
    return project


@pytest.fixture
def relay(project: Project, database: Path) -> Command:
    """A relay that holds the lease."""
    relay = project.run("manage.py", "nats_outbox", "relay")
    eventually(lambda: holder(database), 30, lambda: relay.output)
    return relay


@pytest.fixture
def locked(relay: Command, database: Path) -> Iterator[None]:
    """Another process is writing to the database, and takes its time."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


TWO_DATABASES = """
DATABASES["other"] = {{**DATABASES["default"], "NAME": {name!r}}}
"""
IN_BOTH = """
import django

django.setup()

from django.db import transaction
from nats_consumer import publish_on_commit
from nats_consumer.contrib.outbox.models import OutboxMessage
from nats_consumer.exceptions import OutboxError

for alias in ("default", "other"):
    with transaction.atomic(using=alias):
        publish_on_commit("orders.created", alias, using=alias)
for given, inside in ((None, "other"), ("default", "other"), ("other", "default")):
    try:
        with transaction.atomic(using=inside):
            publish_on_commit("orders.created", "wrong", using=given)
    except OutboxError as error:
        print("refused:", error)
for alias in ("default", "other"):
    print(alias, [bytes(each.payload) for each in OutboxMessage.objects.using(alias)])
"""


def holder(database: Path) -> str | None:
    with closing(sqlite3.connect(database)) as connection:
        row = connection.execute("SELECT holder FROM nats_outbox_relaylease").fetchone()
        return row[0] if row else None


def test_a_relay_ends_although_another_thread_was_given_the_signal(relay: Command) -> None:
    relay.interrupt_beside()
    assert relay.finish(IN_TIME) == 0, relay.output


def test_a_row_is_in_the_database_of_its_transaction_and_nowhere_else(
    project: Project, tmp_path: Path
) -> None:
    settings = (project.folder / "settings.py").read_text()
    name = str(tmp_path / "other.sqlite3")
    project.write("settings.py", settings + TWO_DATABASES.format(name=name))
    project.write("in_both.py", IN_BOTH)
    assert project.run("manage.py", "migrate", "--database", "other").finish() == 0
    writer = project.run("in_both.py")
    assert writer.finish() == 0, writer.output
    assert len(writer.lines_with("refused:")) == 3
    assert writer.lines_with("default [")[0] == "default [b'default']"
    assert writer.lines_with("other [")[0] == "other [b'other']"


def test_a_relay_gives_its_lease_back_when_it_ends(relay: Command, database: Path) -> None:
    relay.interrupt()
    assert relay.finish(IN_TIME) == 0, relay.output
    assert holder(database) == ""


@pytest.mark.usefixtures("locked")
def test_a_relay_whose_database_is_locked_ends_in_time(relay: Command) -> None:
    relay.interrupt()
    assert relay.finish(IN_TIME) == 0, relay.output
    assert "did not end within 7 s and is abandoned" in relay.output


@contextmanager
def killed(server: NatsServer) -> Iterator[None]:
    server.kill()
    yield


@pytest.mark.parametrize("away", [killed, NatsServer.paused])
def test_a_relay_ends_in_time_while_its_server_is_away(
    relay: Command, project: Project, own_server: NatsServer, away: Away
) -> None:
    with away(own_server):
        assert project.run("writer.py").finish() == 0
        relay.wait_for("could not be published")
        relay.interrupt()
        assert relay.finish(IN_TIME) == 0, relay.output
