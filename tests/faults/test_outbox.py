"""The relay of the outbox is killed at each of its steps."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nats_consumer.client import Client, get_nats_client
from tests.faults.support.nodes import Node
from tests.faults.support.postgres import Postgres
from tests.live.support.project import Project
from tests.waiting import eventually

SCRIPT = Path(__file__).parent / "support/outbox_relay.py"
ROOT = Path(__file__).parents[2]
KILLS = 50
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "shop.sqlite3")}
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.settings()


SETTINGS = """
INSTALLED_APPS = ["nats_consumer", "nats_consumer.contrib.outbox"]
DATABASES = {{"default": {database!r}}}
"""
WRITER = """
import sys
import django

django.setup()

from django.db import transaction
from nats_consumer import Outgoing, publish_many_on_commit

for first in range(int(sys.argv[1]), int(sys.argv[2]), 50):
    numbers = range(first, first + 50)
    rows = [Outgoing("orders.created", str(n), key=str(n % 7)) for n in numbers]
    with transaction.atomic():
        publish_many_on_commit(rows)
"""
ROWS = 5000


@pytest.fixture
def project(node: Node, database: dict[str, Any], tmp_path: Path) -> Iterator[Project]:
    """A project with an outbox, whose table exists."""
    project = Project(tmp_path / "project", node.url, None)
    settings = (project.folder / "settings.py").read_text()
    project.write("settings.py", settings + SETTINGS.format(database=database))
    project.write("writer.py", WRITER)
    assert project.run("manage.py", "migrate").finish() == 0
    yield project
    project.end()


def holder(project: Project) -> int:
    """The process id of the relay that holds the lease."""
    status = project.run("manage.py", "nats_outbox", "status")
    assert status.finish() == 0, status.output
    found = re.search(r"Relay: \S+?:(\d+):", status.output)
    assert found, status.output
    return int(found[1])


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_another_relay_goes_on_in_order_when_the_one_with_the_lease_is_lost(
    node: Node, project: Project, fault: signal.Signals
) -> None:
    asyncio.run(make_stream(node.url))
    relays = [project.run("manage.py", "nats_outbox", "relay") for _ in range(3)]
    for relay in relays:
        relay.wait_for("publishing the rows")
    writer = project.run("writer.py", "0", "2500")
    eventually(lambda: asyncio.run(count(node.url)) >= 500)
    lost = holder(project)
    os.kill(lost, fault)
    # Of a key, the order is that of the commits: one writer after the other.
    assert writer.finish() == 0, writer.output
    writer = project.run("writer.py", "2500", str(ROWS))
    assert writer.finish() == 0, writer.output
    # A lease ends after ten seconds.
    eventually(lambda: asyncio.run(count(node.url)) == ROWS, 60)
    assert holder(project) != lost
    if fault is signal.SIGSTOP:
        os.kill(lost, signal.SIGCONT)
    for relay in relays:
        if relay.pid != lost or fault is signal.SIGSTOP:
            relay.interrupt()
            assert relay.finish() == 0, relay.output
    numbers = asyncio.run(stored(node.url))
    assert sorted(numbers) == list(range(ROWS))
    for key in range(7):
        of_key = [number for number in numbers if number % 7 == key]
        assert of_key == sorted(of_key)


@pytest.mark.parametrize("point", ["read", "published", "deleted"])
def test_what_was_committed_is_stored_once_although_the_relay_is_killed(
    node: Node, any_database: dict[str, Any], point: str
) -> None:
    asyncio.run(make_stream(node.url))
    options = {
        "database": any_database,
        "servers": [node.url],
        "subject": "orders.created",
        "point": point,
        "kills": KILLS,
    }
    command = [sys.executable, str(SCRIPT), json.dumps(options)]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = asyncio.run(stored(node.url))
    assert sorted(numbers) == [number for number in range(100) if number % 5]
    for key in range(3):
        of_key = [number for number in numbers if number % 3 == key]
        assert of_key == sorted(of_key)


async def client_of(url: str) -> Client:
    return await get_nats_client(servers=[url])


async def make_stream(url: str) -> None:
    async with await client_of(url) as client:
        await client.jetstream().add_stream(name="orders", subjects=["orders.>"])


async def count(url: str) -> int:
    async with await client_of(url) as client:
        return int((await client.jetstream().stream_info("orders")).state.messages)


async def stored(url: str) -> list[int]:
    async with await client_of(url) as client:
        js = client.jetstream()
        last = (await js.stream_info("orders")).state.last_seq
        messages = [await js.get_msg("orders", seq) for seq in range(1, last + 1)]
        return [int(each.data or b"") for each in messages]
