"""Worker processes under their supervisor, in the numbers that a fleet has."""

import http.client
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.support.nodes import Node
from tests.live.support.project import Project
from tests.live.support.supervised import Supervised, is_alive, kill
from tests.waiting import eventually

CONSUMERS = """
from nats_consumer import JetstreamPullConsumer, operations


class Orders(JetstreamPullConsumer):
    stream_name = "orders"
    filter_subject = "orders.>"
    concurrency = 4

    def setup(self):
        return operations.CreateStream(name="orders", subjects=["orders.>"])

    async def handle_message(self, message): ...
"""
PUBLISH = """
import sys
import django
django.setup()
from nats_consumer import publish_many
publish_many([("orders.created", str(n)) for n in range(int(sys.argv[1]))], timeout=60)
"""


@pytest.fixture
def project(node: Node, tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project", node.url, CONSUMERS)
    made.write("publish.py", PUBLISH)
    yield made
    made.end()


@pytest.mark.timeout(300)
def test_pauses_grow_while_a_worker_is_killed_five_times(project: Project) -> None:
    workers = Supervised(project, 1, "--setup")
    for _ in range(5):
        victim = workers.pid()
        kill(victim)
        eventually(lambda gone=victim: workers.pids() - {gone}, 90)
        workers.become_ready(without={victim})
    lines = workers.command.lines_with("Another one starts in")
    pauses = [float(line.split()[-2]) for line in lines]
    assert len(pauses) == 5
    assert pauses == sorted(set(pauses))
    assert workers.starts("killed") == 5
    workers.finish()


@pytest.mark.timeout(300)
def test_four_workers_are_replaced_one_at_a_time_after_500_messages(project: Project) -> None:
    workers = Supervised(project, 4, "--setup", "--max-messages", "500")
    old = workers.pids()
    command = project.run("publish.py", "6000")
    assert command.finish() == 0, command.output
    eventually(lambda: not old & workers.pids(), 120, lambda: workers.command.output)
    began = "is replaced (max_messages)"
    steps = [
        line for line in workers.command.output.splitlines() if began in line or "Drained" in line
    ]
    pairs = list(zip(steps[::2], steps[1::2], strict=False))
    assert len(pairs) >= 4
    assert all(began in first and "Drained" in second for first, second in pairs)
    settled = workers.probes.samples().value("settled_total", outcome="ack")
    assert settled is not None
    assert settled >= 6000
    workers.finish()


TIMED = r"""
import asyncio, os, time
from nats_consumer import JetstreamPullConsumer, operations


class Orders(JetstreamPullConsumer):
    stream_name = "orders"
    filter_subject = "orders.>"
    concurrency = 4

    def setup(self):
        return operations.CreateStream(name="orders", subjects=["orders.>"])

    async def handle_message(self, message):
        number, published = message.data.decode().split()
        waited = time.monotonic() - float(published)
        note(f"VERSION {os.getpid()} {number} {message.attempt} {waited}")
        await asyncio.sleep(0.02)


def note(line):
    file = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode() + b"\n")
    os.close(file)
"""
# 100 messages a second, until the test has seen enough.
LOAD = """
import itertools, time
from pathlib import Path
import django
django.setup()
from nats_consumer import publish
for number in itertools.count():
    if Path("enough").exists():
        break
    publish("orders.created", f"{number} {time.monotonic()}")
    time.sleep(0.01)
print("published", number, flush=True)
"""


@pytest.mark.timeout(300)
def test_no_message_waits_for_a_second_while_two_workers_are_replaced(project: Project) -> None:
    project.write("shop/consumers.py", TIMED.replace("VERSION", "1"))
    project.write("load.py", LOAD)
    workers = Supervised(project, 2, "--setup")
    supervisor, old = workers.command.pid, workers.pids()
    load = project.run("load.py")
    ledger = project.folder / "ledger"
    eventually(lambda: ledger.exists() and ledger.read_text().count("\n") > 100)
    project.write("shop/consumers.py", TIMED.replace("VERSION", "22"))
    workers.send(signal.SIGHUP)
    workers.command.wait_for("All workers are replaced.", 120)
    seen = ledger.read_text().count("\n")
    eventually(lambda: ledger.read_text().count("\n") > seen + 100)
    project.write("enough", "")
    assert load.finish() == 0, load.output
    published = int(load.lines_with("published ")[0].split()[1])
    eventually(lambda: ledger.read_text().count("\n") >= published)
    workers.become_ready(without=old)
    lines = [line.split() for line in ledger.read_text().splitlines()]
    assert sorted(int(number) for _, _, number, _, _ in lines) == list(range(published)), "once"
    assert {attempt for _, _, _, attempt, _ in lines} == {"1"}
    assert max(float(waited) for *_, waited in lines) < 1
    assert {version for version, *_ in lines[-100:]} == {"22"}
    assert {int(pid) for _, pid, *_ in lines[-100:]} == workers.pids()
    assert (workers.command.pid, is_alive(supervisor)) == (supervisor, True)
    workers.finish()


# While there is the file, each message is followed by another one.
ENDLESS = """
import asyncio
from pathlib import Path
from nats_consumer import JetstreamPullConsumer, apublish, operations


class Orders(JetstreamPullConsumer):
    stream_name = "orders"
    filter_subject = "orders.>"

    def setup(self):
        return operations.CreateStream(name="orders", subjects=["orders.>"])

    async def handle_message(self, message):
        await asyncio.sleep(0.05)
        if Path("more").exists():
            await apublish("orders.created", "next")
"""


def held(pid: int) -> tuple[int, int]:
    """The open files and the threads of this process."""
    return tuple(len(list(Path(f"/proc/{pid}/{each}").iterdir())) for each in ("fd", "task"))  # type: ignore[return-value]


def resident(pid: int) -> int:
    """The resident memory of this process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def recycle(workers: Supervised, count: int) -> None:
    """Let this number of workers be replaced, and then none."""
    wanted = workers.starts("max_messages") + count
    workers.project.write("more", "")
    command = workers.project.run("publish.py", "1")
    assert command.finish() == 0, command.output
    eventually(lambda: workers.starts("max_messages") >= wanted, 20 * count)
    (workers.project.folder / "more").unlink()
    eventually(
        lambda: (
            workers.command.output.count("is replaced (max_messages)")
            == workers.command.output.count("Drained.")
            and workers.probes.is_ready()
        ),
        60,
    )


@pytest.mark.timeout(1200)
def test_a_supervisor_holds_no_more_after_fifty_real_workers(project: Project) -> None:
    project.write("shop/consumers.py", ENDLESS)
    workers = Supervised(project, 1, "--setup", "--max-messages", "1")
    supervisor = workers.command.pid
    recycle(workers, 3)
    files, threads = held(supervisor)
    memory = resident(supervisor)
    recycle(workers, 50)
    eventually(
        lambda: held(supervisor) == (files, threads),
        explain=lambda: f"{held(supervisor)}, {(files, threads)} before",
    )
    assert resident(supervisor) - memory < 4
    workers.finish()


@pytest.mark.timeout(300)
def test_a_supervisor_holds_no_more_after_ten_thousand_scrapes(project: Project) -> None:
    workers = Supervised(project, 2, "--setup")
    supervisor, address = workers.command.pid, urlsplit(workers.probes.url).netloc

    def scrape(times: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=10)
        for _ in range(times):
            connection.request("GET", "/metrics")
            assert b"nats_consumer_workers 2" in connection.getresponse().read()
        connection.close()

    scrape(1000)
    before = held(supervisor)
    memory = resident(supervisor)
    scrape(10_000)
    assert resident(supervisor) - memory < 4
    # The first look may have counted a connection that was just being closed.
    eventually(
        lambda: all(now <= then for now, then in zip(held(supervisor), before, strict=True)),
        explain=lambda: (held(supervisor), before),
    )
    workers.finish()
