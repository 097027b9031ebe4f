"""Two worker processes on one durable share the work."""

from collections.abc import Callable

import pytest

from tests.live.support.project import Project
from tests.servers import NatsServer
from tests.waiting import eventually

CONSUMERS = """
import asyncio, logging
from pathlib import Path
from nats_consumer import {base}, operations

logger = logging.getLogger("shop")
GO = Path("go")


class Orders({base}):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"
    concurrency = 2
    batch_size = 2

    async def setup(self):
        return operations.CreateStream(name={stream!r}, subjects=["{stream}.>"])

    async def handle_message(self, message):
        logger.info("began %s", message.data.decode())
        while not GO.exists():  # until both workers have work
            await asyncio.sleep(0.01)
        logger.info("handled %s", message.data.decode())
"""

PUBLISH = """
import asyncio
from nats_consumer import get_nats_client

async def publish():
    async with await get_nats_client() as client:
        for number in range(200):
            await client.jetstream().publish("{stream}.created", b"%d" % number)

asyncio.run(publish())
"""


@pytest.mark.parametrize("base", ["JetstreamPushConsumer", "JetstreamPullConsumer"])
def test_two_processes_share_a_durable_and_handle_nothing_twice(
    make_project: Callable[..., Project],
    nats_server: NatsServer,
    fresh: Callable[[str], str],
    base: str,
) -> None:
    stream = fresh("orders")
    project = make_project(CONSUMERS.format(base=base, stream=stream))
    project.write("publish.py", PUBLISH.format(stream=stream))
    workers = [project.consume("--setup"), project.consume("--setup")]
    for worker in workers:
        worker.wait_for("Orders: consuming")
    assert project.run("publish.py").finish() == 0
    for worker in workers:
        worker.wait_for("began")
    project.write("go", "")
    eventually(
        lambda: nats_server.consumer(stream, "Orders")["ack_floor"]["stream_seq"] == 200,
        timeout=20,
    )
    for worker in workers:
        worker.interrupt()
    assert [worker.finish() for worker in workers] == [0, 0]
    handled = [
        [int(line.split()[-1]) for line in worker.lines_with("handled ")] for worker in workers
    ]
    assert all(handled)
    assert sorted(handled[0] + handled[1]) == list(range(200))


@pytest.mark.parametrize("base", ["JetstreamPushConsumer", "JetstreamPullConsumer"])
def test_second_process_goes_on_where_a_killed_one_left_off(
    make_project: Callable[..., Project],
    nats_server: NatsServer,
    fresh: Callable[[str], str],
    base: str,
) -> None:
    stream = fresh("orders")
    text = CONSUMERS.format(base=base, stream=stream).replace(
        "concurrency = 2", "concurrency = 2\n    ack_wait = 1.0"
    )
    project = make_project(text)
    project.write("publish.py", PUBLISH.format(stream=stream))
    first = project.consume("--setup")
    first.wait_for("Orders: consuming")
    assert project.run("publish.py").finish() == 0
    first.wait_for_lines("began", 2)
    first.end()
    project.write("go", "")
    second = project.consume()
    eventually(
        lambda: nats_server.consumer(stream, "Orders")["ack_floor"]["stream_seq"] == 200,
        timeout=30,
    )
    second.interrupt()
    assert second.finish() == 0, second.output
    handled = {int(line.split()[-1]) for line in second.lines_with("handled ")}
    assert handled == set(range(200))
