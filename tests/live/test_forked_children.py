"""A handler forks: its child is no second worker."""

from collections.abc import Callable

import pytest

from tests.live.support.project import Project
from tests.servers import NatsServer
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("exact_start")

CONSUMERS = """
import asyncio, logging, os, sys
from nats_consumer import JetstreamPullConsumer, operations

logger = logging.getLogger("shop")


def fork(end):
    if os.fork() == 0:
        print("child", os.getpid(), "ends")
        end()
        return
    _, status = os.wait()
    logger.info("the child ended with %s", os.waitstatus_to_exitcode(status))


def fail():
    raise ValueError("in the child")


ENDS = {{
    "exit": lambda: sys.exit(3),
    "text": lambda: sys.exit("a reason"),
    "return": lambda: None,
    "error": fail,
}}


class Orders(JetstreamPullConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"

    async def setup(self):
        return operations.CreateStream(name={stream!r}, subjects=["{stream}.>"])

    {handler}
"""
HANDLERS = {
    "async": """
    async def handle_message(self, message):
        fork(ENDS[message.data.decode()])
""",
    "after a wait": """
    async def handle_message(self, message):
        await asyncio.sleep(0.01)
        fork(ENDS[message.data.decode()])
""",
    "def": """
    def handle_message(self, message):
        fork(ENDS[message.data.decode()])
""",
    "in a thread": """
    async def handle_message(self, message):
        from nats_consumer import lanes
        await lanes.call(fork, ENDS[message.data.decode()])
""",
}
PUBLISH = """
import sys
import django
django.setup()
from nats_consumer import publish
publish(*sys.argv[1:])
"""


SETTLES = """
    def handle_message(self, message):
        fork(partial(settle, message))
"""
SETTLE = """
from functools import partial

from nats_consumer.exceptions import ForkedProcess


def settle(message):
    calls = [message.ack, message.nak, message.term, message.in_progress, message.ack_sync]
    for call in [*calls, partial(message.copy_to_dlq, "no reason")]:
        try:
            call()
        except ForkedProcess:
            continue
        os._exit(1)
    os._exit(0)
"""


def test_a_forked_child_is_told_that_it_cannot_settle_the_message(
    make_project: Callable[..., Project], fresh: Callable[[str], str]
) -> None:
    stream = fresh("orders")
    consumers = CONSUMERS.format(stream=stream, handler=SETTLES.lstrip())
    project = make_project(consumers.replace("class Orders", f"{SETTLE.strip()}\n\n\nclass Orders"))
    project.write("publish.py", PUBLISH)
    worker = project.consume("--setup")
    worker.wait_for("Orders: consuming")
    assert project.run("publish.py", f"{stream}.created", "any").finish() == 0
    (line,) = worker.wait_for_lines("the child ended with", 1)
    assert line.endswith("with 0")
    worker.interrupt()
    assert worker.finish() == 0, worker.output


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_forked_child_ends_where_it_leaves_the_handler(
    make_project: Callable[..., Project],
    nats_server: NatsServer,
    fresh: Callable[[str], str],
    handler: str,
) -> None:
    stream = fresh("orders")
    text = CONSUMERS.format(stream=stream, handler=HANDLERS[handler].lstrip())
    project = make_project(text)
    project.write("publish.py", PUBLISH)
    worker = project.consume("--setup")
    worker.wait_for("Orders: consuming")
    for number, (what, status) in enumerate(
        {"exit": 3, "text": 1, "return": 0, "error": 1}.items(), 1
    ):
        assert project.run("publish.py", f"{stream}.created", what).finish() == 0
        lines = worker.wait_for_lines("the child ended with", number)
        assert lines[-1].endswith(f"with {status}")
    eventually(lambda: nats_server.consumer(stream, "Orders")["ack_floor"]["stream_seq"] == 4)
    assert len(worker.lines_with("ends")) >= 4  # what a child wrote is not lost
    assert "ValueError: in the child" in worker.output
    worker.interrupt()
    assert worker.finish() == 0, worker.output
