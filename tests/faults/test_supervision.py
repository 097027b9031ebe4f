"""Worker processes under their supervisor, in the numbers that a fleet has."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.support.nodes import Node
from tests.live.support.project import Project
from tests.live.support.supervised import Supervised, kill
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
