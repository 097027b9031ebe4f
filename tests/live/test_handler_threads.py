"""Threads belong to the process: consumers with `def` handlers share them, and take turns."""

import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from django.utils import translation
from pytest_django import Settings

from nats_consumer import NatsConsumer
from nats_consumer.lanes import handler_threads
from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.project import Project
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

# Nine looks, one a second, on a busy machine.
SOON = 20
seen_before: ContextVar[object] = ContextVar("seen_before", default=None)


@asynccontextmanager
async def all_running(*consumers: type[NatsConsumer]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for each in consumers:
            await stack.enter_async_context(running(each))
        yield


def consumer(
    stage: Stage, name: str, handle: Callable[[Any], None], **more: Any
) -> type[NatsConsumer]:
    """A consumer of the event of its own name, whose handler is `handle`."""
    return type(
        name,
        (stage.Pull,),
        {
            "__module__": __name__,
            "filter_subject": f"{stage.stream}.{name.lower()}",
            "handle_message": lambda self, message: handle(message),
            **more,
        },
    )


async def test_idle_consumers_share_one_thread(stage: Stage) -> None:
    done: list[str] = []
    consumers = [
        consumer(stage, f"Idle{number}", lambda message: done.append(message.subject))
        for number in range(12)
    ]
    async with all_running(*consumers):
        await becomes_true(lambda: len(handler_threads.alive()) == 1)
        for number, each in enumerate(consumers, 1):
            await stage.publish("one", event=each.__name__.lower())
            await becomes_true(lambda count=number: len(done) == count)
        assert len(handler_threads.alive()) < len(consumers) / 2
    await becomes_true(lambda: not handler_threads.alive())


async def test_a_process_has_no_more_handlers_than_max_threads_at_work(
    stage: Stage, settings: Settings
) -> None:
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "max_threads": 3}
    inside: set[str] = set()
    release = threading.Event()

    def handle(message: Any) -> None:
        inside.add(threading.current_thread().name)
        release.wait(30)

    first = consumer(stage, "First", handle, concurrency=5)
    second = consumer(stage, "Second", handle, concurrency=5)
    async with all_running(first, second):
        await stage.publish(*range(10), event="first")
        await becomes_true(lambda: len(inside) == 3)
        await stage.publish(*range(10), event="second")
        assert len(handler_threads.alive()) == 3
        release.set()
        await stage.everything_is_settled(second)
    assert {name.split("-")[1] for name in inside} == {"1", "2", "3"}


async def test_a_backlog_does_not_keep_other_consumers_waiting(
    stage: Stage, settings: Settings
) -> None:
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "max_threads": 1}
    order: list[str] = []
    has_begun, release = threading.Event(), threading.Event()

    def handle_busy(message: Any) -> None:
        order.append("busy")
        has_begun.set()
        release.wait(30)

    busy = consumer(stage, "Busy", handle_busy, concurrency=4)
    other = consumer(stage, "Other", lambda message: order.append("other"), concurrency=4)
    await stage.publish(*range(40), event="busy")
    async with all_running(busy, other):
        await becomes_true(has_begun.is_set)
        await stage.publish("one", event="other")
        await becomes_true(lambda: stage.consumer(other)["num_ack_pending"] == 1)
        release.set()
        await becomes_true(lambda: "other" in order)
        assert order.index("other") < 40


async def test_a_thread_that_goes_on_for_another_consumer_shows_nothing_of_the_first(
    stage: Stage, settings: Settings
) -> None:
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "max_threads": 1}
    seen: list[tuple[Any, ...]] = []

    def handle(message: Any) -> None:
        thread = threading.current_thread()
        seen.append((thread.ident, thread.name, seen_before.get(), translation.get_language()))
        seen_before.set(message.subject)
        translation.activate("de")

    consumers = [consumer(stage, name, handle) for name in ("First", "Second")]
    language = translation.get_language()
    async with all_running(*consumers):
        for number, event in enumerate(["first", "second", "first"], 1):
            await stage.publish("one", event=event)
            await becomes_true(lambda count=number: len(seen) == count)
    assert len({ident for ident, *_ in seen}) == 1
    assert [name for _, name, *_ in seen] == ["First-1", "Second-1", "First-1"]
    assert [state for _, _, *state in seen] == [[None, language]] * 3


async def test_handle_error_is_called_although_others_hold_every_thread(
    stage: Stage, settings: Settings
) -> None:
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "max_threads": 2}
    release = threading.Event()
    held: list[str] = []
    errors: list[tuple[str, str]] = []

    def hold(message: Any) -> None:
        held.append(message.subject)
        release.wait(30)

    def note(self: Any, message: Any, error: Exception, attempt: int) -> None:
        errors.append((type(error).__name__, threading.current_thread().name))

    holding = consumer(stage, "Holding", hold, concurrency=1)
    late = consumer(
        stage,
        "Late",
        hold,
        concurrency=1,
        handler_timeout=0.2,
        max_retries=0,
        handle_error=note,
    )
    try:
        async with all_running(holding, late):
            await stage.publish("one", event="holding")
            await becomes_true(lambda: held)
            await stage.publish("one", event="late")
            await becomes_true(lambda: errors)
            release.set()
    finally:
        release.set()
    assert errors == [("TimeoutError", "Late-late")]


CONSUMERS = """
import logging, time
from pathlib import Path
from nats_consumer import JetstreamPullConsumer, operations

logger = logging.getLogger("shop")


class OfStream:
    stream_name = {stream!r}

    def setup(self):
        return operations.CreateStream(name={stream!r}, subjects=["{stream}.>"])


class Hanging(OfStream, JetstreamPullConsumer):
    filter_subject = "{stream}.hanging"
    concurrency = 5

    def handle_message(self, message):
        logger.info("hanging began")
        while not Path("go").exists():
            time.sleep(0.01)


class Innocent(OfStream, JetstreamPullConsumer):
    filter_subject = "{stream}.innocent"

    def handle_message(self, message):
        logger.info("innocent handled %s", message.data.decode())
"""
PUBLISH = """
import sys
import django
django.setup()
from nats_consumer import publish
for payload in sys.argv[2:]:
    publish(sys.argv[1], payload.encode())
"""


def test_messages_of_a_consumer_whose_threads_others_hold_go_to_other_workers(
    make_project: Callable[..., Project], fresh: Callable[[str], str]
) -> None:
    stream = fresh("orders")
    project = make_project(CONSUMERS.format(stream=stream))
    settings = (project.folder / "settings.py").read_text()
    project.write("settings.py", settings + '\nNATS_CONSUMER["max_threads"] = 2\n')
    project.write("publish.py", PUBLISH)

    def publish(event: str) -> None:
        publisher = project.run("publish.py", f"{stream}.{event}", "one", "two")
        assert publisher.finish() == 0, publisher.output

    worker = project.consume("Hanging", "Innocent", "--setup")
    worker.wait_for_lines("consuming", 2)
    publish("hanging")
    worker.wait_for_lines("hanging began", 2)
    publish("innocent")
    said = worker.wait_for("Innocent: all 2 threads of this process are held", timeout=SOON)
    assert said.startswith("WARNING nats_consumer.consumer: ")
    assert "held by handlers of Hanging (2)" in said
    place = rf"message [12] of {stream}\.hanging .* is at shop/consumers\.py:\d+ in handle_message"
    assert re.search(rf"one of Hanging: it has {place}", said)
    other = project.consume("Innocent")
    other.wait_for_lines("innocent handled", 2)
    project.write("go", "")
    worker.wait_for("Innocent: Taking messages again after a stall of", timeout=SOON)
