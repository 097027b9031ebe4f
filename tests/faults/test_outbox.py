"""The relay of the outbox is killed and frozen, and its server is away."""

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nats_consumer.api import AckPolicy, ConsumerConfig
from nats_consumer.client import Client, get_nats_client
from tests.command import Command
from tests.faults.support.nodes import Node
from tests.faults.support.postgres import Postgres
from tests.faults.support.proxy import UP, Proxy
from tests.live.support.project import Project
from tests.waiting import eventually

SCRIPT = Path(__file__).parent / "support/outbox_relay.py"
ROOT = Path(__file__).parents[2]
KILLS = 50
FROZEN_SECONDS = 20
pytestmark = pytest.mark.timeout(300)


SETTINGS = """
INSTALLED_APPS = ["nats_consumer", "nats_consumer.contrib.outbox"]
DATABASES = {databases!r}
"""
WRITER = """
import sys
import django

django.setup()

from django.db import transaction
from nats_consumer import Outgoing, publish_many_on_commit

first, last, *size = map(int, sys.argv[1:])
for first in range(first, last, 100):
    numbers = range(first, first + 100)
    data = [str(n).ljust(*size or [0]) for n in numbers]
    rows = [Outgoing("orders.created", each, key=str(int(each) % 200)) for each in data]
    with transaction.atomic():
        publish_many_on_commit(rows)
"""
ROWS, KEYS = 20_000, 200
# Notes when each of its batches begins and ends, by the clock that all processes share.
RELAY = """
import os
import time
import django

django.setup()

from django.core.management import call_command
from nats_consumer.contrib.outbox.relay import Relay

publish = Relay._publish


def note(what):
    with open("batches", "a") as ledger:
        ledger.write(f"{os.getpid()} {what} {time.monotonic()}\\n")


def noted(self, rows):
    note("begins")
    try:
        return publish(self, rows)
    finally:
        note("ends")


Relay._publish = noted
call_command("nats_outbox", "relay")
"""
AWAY_SECONDS = 180
SLOW_WRITER = f"""
import time
import django

django.setup()

from django.db import connections, transaction
from nats_consumer import publish_on_commit
from nats_consumer.contrib.outbox.lag import lag

ROWS = 1000
began = time.monotonic()
for number in range(ROWS):
    time.sleep(max(began + number * {AWAY_SECONDS} / ROWS - time.monotonic(), 0))
    for alias in connections:
        asked = time.monotonic()
        with transaction.atomic(using=alias):
            publish_on_commit(f"orders.{{alias}}", str(number), key=str(number % 7), using=alias)
        print("took", time.monotonic() - asked)
        if number % 100 == 99:
            print("oldest", alias, lag(alias).oldest_seconds)
"""

LATE_WRITER = """
import threading
import time
import django

django.setup()

from django.db import connection, transaction
from nats_consumer import publish_on_commit


def write_the_higher():
    publish_on_commit("orders.created", "2")
    connection.close()


with transaction.atomic():
    publish_on_commit("orders.created", "1")
    other = threading.Thread(target=write_the_higher)
    other.start()
    other.join()
    time.sleep(5)
print("committed", time.monotonic())
"""


@dataclass(frozen=True)
class Batch:
    """A batch that the relay `pid` published. One that was killed has no end."""

    pid: int
    begin: float
    end: float


@pytest.fixture
def make_project(node: Node, tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """`make_project(databases)` is a project with an outbox in each of them."""
    projects: list[Project] = []

    def make(**databases: dict[str, Any]) -> Project:
        project = Project(tmp_path / "project", node.url, None)
        projects.append(project)
        settings = (project.folder / "settings.py").read_text()
        project.write("settings.py", settings + SETTINGS.format(databases=databases))
        project.write("writer.py", WRITER)
        project.write("relay.py", RELAY)
        project.write("slow_writer.py", SLOW_WRITER)
        project.write("batches", "")
        for alias in databases:
            assert project.run("manage.py", "migrate", "--database", alias).finish() == 0
        return project

    yield make
    for project in projects:
        project.end()


def sqlite(path: Path) -> dict[str, Any]:
    # A relay that is frozen while it writes holds up all who write: nobody gives up meanwhile.
    options = {"timeout": 60}
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": options}


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "sqlite":
        return sqlite(tmp_path / "shop.sqlite3")
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.settings()


def batches(project: Project) -> list[Batch]:
    """The ledger of all relays, in the order of their beginnings."""
    found: list[Batch] = []
    for line in (project.folder / "batches").read_text().splitlines():
        pid, what, when = line.split()
        if what == "begins":
            found.append(Batch(int(pid), float(when), math.inf))
        else:
            at = max(n for n, each in enumerate(found) if each.pid == int(pid))
            found[at] = replace(found[at], end=float(when))
    return found


def has_one_relay_at_a_time(ledger: list[Batch], lost: int) -> bool:
    """Whether no relay began a batch within one of another, except for the one that was lost."""
    return not any(
        each.begin < other.begin < each.end
        for each in ledger
        for other in ledger
        if each.pid not in (other.pid, lost)
    )


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_another_relay_goes_on_in_order_when_the_one_with_the_lease_is_lost(
    node: Node,
    make_project: Callable[..., Project],
    database: dict[str, Any],
    fault: signal.Signals,
) -> None:
    asyncio.run(make_stream(node.url))
    project = make_project(default=database)
    write(project, 0, ROWS // 2)
    relays = [project.run("relay.py") for _ in range(3)]
    eventually(lambda: len(batches(project)) >= 4, 60)
    lost = batches(project)[-1].pid
    os.kill(lost, fault)
    lost_at = time.monotonic()
    # Of a key, the order is that of the commits: one writer after the other.
    write(project, ROWS // 2, ROWS)
    if fault is signal.SIGSTOP:
        eventually(lambda: time.monotonic() - lost_at > FROZEN_SECONDS)
        os.kill(lost, signal.SIGCONT)
        end([each for each in relays if each.pid == lost])
    eventually(lambda: asyncio.run(count(node.url)) == ROWS, 60)
    end([each for each in relays if each.pid != lost])
    numbers = asyncio.run(stored(node.url))
    assert sorted(numbers) == list(range(ROWS))
    assert in_order(numbers, KEYS)
    ledger = batches(project)
    assert has_one_relay_at_a_time(ledger, lost)
    heir = next(each for each in ledger if each.pid != lost)
    if fault is signal.SIGKILL:
        assert heir.begin - lost_at < 11


def test_rows_of_three_minutes_without_a_server_arrive_in_order(
    node: Node, make_project: Callable[..., Project], postgres: Postgres, tmp_path: Path
) -> None:
    asyncio.run(make_stream(node.url))
    project = make_project(default=sqlite(tmp_path / "shop.sqlite3"), other=postgres.settings())
    relay = project.run("manage.py", "nats_outbox", "relay")
    relay.wait_for("publishing the rows of default, other")
    node.kill()
    writer = project.run("slow_writer.py")
    assert writer.finish(AWAY_SECONDS + 60) == 0, writer.output
    assert max(float(line.split()[1]) for line in writer.lines_with("took")) < 5
    node.start()
    eventually(lambda: status(project).count(": 0 waiting, the oldest for 0.0 s") == 2, 60)
    for alias in ("default", "other"):
        ages = [float(line.split()[2]) for line in writer.lines_with(f"oldest {alias}")]
        assert ages == sorted(ages)
        assert ages[-1] > AWAY_SECONDS * 0.9
        numbers = asyncio.run(stored(node.url, f"orders.{alias}"))
        assert sorted(numbers) == list(range(1000))
        assert in_order(numbers, 7)
    end([relay])


def test_a_transaction_with_a_lower_id_that_commits_5_s_later_is_published_at_once(
    node: Node, make_project: Callable[..., Project], postgres: Postgres
) -> None:
    asyncio.run(make_stream(node.url))
    project = make_project(default=postgres.settings())
    project.write("late_writer.py", LATE_WRITER)
    relay = project.run("manage.py", "nats_outbox", "relay")
    relay.wait_for("publishing the rows")
    writer = project.run("late_writer.py")
    eventually(lambda: asyncio.run(count(node.url)) == 1, 5)
    assert writer.finish() == 0, writer.output
    eventually(lambda: asyncio.run(count(node.url)) == 2)
    took = time.monotonic() - float(writer.lines_with("committed")[0].split()[1])
    assert took < 2
    assert asyncio.run(stored(node.url)) == [2, 1]
    end([relay])


def write(project: Project, first: int, after: int) -> None:
    writer = project.run("writer.py", str(first), str(after))
    assert writer.finish(180) == 0, writer.output


def status(project: Project) -> str:
    command = project.run("manage.py", "nats_outbox", "status")
    assert command.finish() == 0, command.output
    return command.output


def end(relays: list[Command]) -> None:
    for relay in relays:
        relay.interrupt()
    for relay in relays:
        assert relay.finish(10) == 0, relay.output


def in_order(numbers: list[int], keys: int) -> bool:
    """Whether the numbers of each key, which is their rest, rise."""
    last: dict[int, int] = {}
    for number in numbers:
        if last.get(number % keys, -1) > number:
            return False
        last[number % keys] = number
    return True


def test_a_connection_that_is_lost_in_mid_batch_reorders_no_key(
    node: Node,
    make_project: Callable[..., Project],
    database: dict[str, Any],
    make_proxy: Callable[[str], Proxy],
) -> None:
    asyncio.run(make_stream(node.url))
    project, proxy = make_project(default=database), make_proxy(node.url)
    settings = (project.folder / "settings.py").read_text()
    settings += f'NATS_CONSUMER["connect_args"]["servers"] = [{proxy.url!r}]\n'
    project.write("settings.py", settings)
    for cut, mebibytes in enumerate([0.1, 1, 2]):
        first, last = cut * 500, cut * 500 + 500
        writer = project.run("writer.py", str(first), str(last), "8000")
        assert writer.finish() == 0, writer.output
        proxy.cut_after(UP, int(mebibytes * 2**20))
        relay = project.run("manage.py", "nats_outbox", "relay")
        eventually(lambda last=last: asyncio.run(count(node.url)) == last, 60)
        assert "could not be published" in relay.output
        relay.interrupt()
        assert relay.finish() == 0, relay.output
    assert asyncio.run(stored(node.url)) == list(range(1500))


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
    assert sorted(numbers) == [number for number in range(500) if number % 5]
    assert in_order(numbers, 3)


async def client_of(url: str) -> Client:
    return await get_nats_client(servers=[url])


async def make_stream(url: str) -> None:
    async with await client_of(url) as client:
        await client.jetstream().add_stream(name="orders", subjects=["orders.>"])


async def count(url: str) -> int:
    async with await client_of(url) as client:
        return int((await client.jetstream().stream_info("orders")).state.messages)


async def stored(url: str, subject: str = "orders.>") -> list[int]:
    """The payloads of the subject, in the order of the stream."""
    async with await client_of(url) as client:
        js = client.jetstream()
        taken = ConsumerConfig(ack_policy=AckPolicy.NONE)
        reader = await js.pull_subscribe(subject, stream="orders", config=taken)
        left = (await reader.consumer_info()).num_pending or 0
        numbers: list[int] = []
        while len(numbers) < left:
            numbers += [int(each.data or b"") for each in await reader.fetch(1000, timeout=10)]
        return numbers
