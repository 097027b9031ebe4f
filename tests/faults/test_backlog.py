"""A worker starts where a million messages wait."""

import asyncio
import json
from pathlib import Path

import nats
import pytest

from tests.faults.support.nodes import Node
from tests.faults.support.stage import STREAM, Stage, Worker
from tests.waiting import eventually

MANY = 1_000_000
MEMORY = 64 * 2**20
pytestmark = pytest.mark.timeout(120)


async def store(url: str) -> None:
    """Without a confirmation for each, which would take minutes."""
    client = await nats.connect(url)
    for number in range(MANY):
        await client.publish(f"{STREAM}.created", json.dumps({"id": str(number)}).encode())
    await client.drain()


def most_memory(worker: Worker) -> int:
    """The most bytes of memory the process ever had."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    [kilobytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(kilobytes) * 1024


@pytest.mark.parametrize("consumer", ["Pulled", "PushedInThreads"])
def test_a_million_waiting_messages_cost_no_memory(stage: Stage, node: Node, consumer: str) -> None:
    idle = stage.work(consumer).is_ready()
    before = most_memory(idle)
    stage.stop(idle)
    asyncio.run(store(node.url))
    stored = lambda: stage.witness.stream(STREAM)["state"]["messages"] == MANY  # noqa: E731
    eventually(stored, 60, stage.story)
    worker = stage.work(consumer, concurrency=20).is_ready()
    stage.reaches("DONE", 2000, within=60)
    assert most_memory(worker) <= before + MEMORY
    stage.stop(worker)
