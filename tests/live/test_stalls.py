"""Handlers that hold up their consumer are named, and others handle what waits meanwhile."""

import re
from collections.abc import Callable

import pytest

from tests.live.support.project import Project
from tests.waiting import eventually

CONSUMERS = """
import asyncio, logging, threading, time
from pathlib import Path
from nats_consumer import JetstreamPullConsumer, JetstreamPushConsumer, operations

logger = logging.getLogger("shop")


def hang():
    while not Path("go").exists():
        time.sleep(0.01)


class OfStream:
    stream_name = {stream!r}

    def setup(self):
        return operations.CreateStream(name={stream!r}, subjects=["{stream}.>"])


class Async(OfStream, {base}):
    filter_subject = "{stream}.async"
    concurrency = 2

    async def handle_message(self, message):
        if message.data == b"hangs":
            hang()
        logger.info("async handled %s", message.data.decode())


class Other(OfStream, {base}):
    filter_subject = "{stream}.other"

    async def handle_message(self, message):
        logger.info("other handled %s", message.data.decode())


class Threads(OfStream, {base}):
    filter_subject = "{stream}.threads"
    concurrency = 2
    max_retries = 0

    def handle_message(self, message):
        if message.data == b"hangs":
            hang()
        if message.data == b"fails":
            raise ValueError("no")
        logger.info("thread handled %s", message.data.decode())

    def handle_error(self, message, error, attempt):
        hang()
"""
PUBLISH = """
import sys
import django
django.setup()
from nats_consumer import publish
for payload in sys.argv[2:]:
    publish(sys.argv[1], payload.encode())
"""
HANG = r"at shop/consumers\.py:\d+ in {} > shop/consumers\.py:\d+ in hang"
# Nine looks, one a second, on a busy machine.
SOON = 20


class Shop:
    """The project, and what is published in it."""

    def __init__(self, project: Project, stream: str) -> None:
        self.project = project
        self.stream = stream
        project.write("publish.py", PUBLISH)

    def publish(self, event: str, *payloads: str) -> None:
        publisher = self.project.run("publish.py", f"{self.stream}.{event}", *payloads)
        assert publisher.finish() == 0, publisher.output

    def let_go(self) -> None:
        self.project.write("go", "")


@pytest.fixture
def stream(fresh: Callable[[str], str]) -> str:
    return fresh("orders")


@pytest.fixture(params=["JetstreamPullConsumer", "JetstreamPushConsumer"])
def shop(request: pytest.FixtureRequest, make_project: Callable[..., Project], stream: str) -> Shop:
    project = make_project(CONSUMERS.format(stream=stream, base=request.param))
    return Shop(project, stream)


def test_an_async_handler_that_blocks_the_event_loop_is_named_and_others_take_what_waits(
    shop: Shop, stream: str
) -> None:
    worker = shop.project.consume("Async", "Other", "--setup")
    worker.wait_for_lines("consuming", 2)
    shop.publish("async", "hangs")
    shop.publish("other", "one", "two")
    said = worker.wait_for(f"Async: the handler of message 1 of {stream}.async", timeout=SOON)
    assert said.startswith("ERROR nats_consumer.consumer: ")
    assert re.search(HANG.format("handle_message"), said)
    told = "Other: a handler of Async has blocked the event loop that both share"
    worker.wait_for(told, timeout=SOON)
    second = shop.project.consume("Other")
    second.wait_for_lines("other handled", 2)
    shop.let_go()
    worker.wait_for("Async: Taking messages again after a stall of", timeout=SOON)
    shop.publish("async", "three")
    worker.wait_for("async handled three")


@pytest.mark.parametrize("what", ["hangs", "fails"])
def test_threads_that_hang_are_named_and_others_take_what_waits(
    shop: Shop, stream: str, what: str
) -> None:
    worker = shop.project.consume("Threads", "--setup")
    worker.wait_for("Threads: consuming")
    shop.publish("threads", what, what, "one", "two")
    said = worker.wait_for("Threads: none of its 2 threads has been free", timeout=SOON)
    assert re.search(rf"has message [12] of {stream}\.threads", said)
    assert re.search(HANG.format("handle_message" if what == "hangs" else "handle_error"), said)
    second = shop.project.consume("Threads")
    second.wait_for_lines("thread handled", 2)
    shop.let_go()
    worker.wait_for("Threads: Taking messages again after a stall of", timeout=SOON)
    shop.publish("threads", "three")
    eventually(lambda: "thread handled three" in worker.output + second.output)
