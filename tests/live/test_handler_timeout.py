"""A handler that takes longer than handler_timeout."""

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pytest_django import Settings

from nats_consumer import ConsumerHandler, ErrorAckBehavior, handle
from nats_consumer.lanes import own_thread
from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_message_is_retried_and_later_ones_run(stage: Stage) -> None:
    seen = []

    class Orders(stage.Push):
        handler_timeout = 0.1

        async def handle_message(self, message: Any) -> None:
            if message.data == b"slow" and message.attempt == 1:
                await for_ever()
            async with asyncio.timeout(10):
                await asyncio.sleep(0)
            seen.append((message.data, message.attempt, asyncio.current_task().cancelling()))

    async with running(Orders) as orders:
        await stage.publish("slow", "two", "three")
        await stage.everything_is_settled(Orders)
        assert (orders.total_success_count, orders.total_error_count) == (3, 0)
    assert sorted(seen) == [(b"slow", 2, 0), (b"three", 1, 0), (b"two", 1, 0)]


async def test_last_attempt_gives_handle_error_a_timeout_error(stage: Stage) -> None:
    errors = []

    class Orders(stage.Push):
        handler_timeout = 0.05
        max_retries = 1
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            await for_ever()

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            await asyncio.sleep(0)
            errors.append((type(error), "0.05" in str(error) or "50" in str(error), attempt))

    async with running(Orders):
        await stage.publish("slow")
        await stage.everything_is_settled(Orders)
    assert errors == [(TimeoutError, True, 2)]


async def test_handler_may_clean_up_and_is_retried_still(stage: Stage) -> None:
    steps = []

    class Orders(stage.Push):
        handler_timeout = 0.05

        async def handle_message(self, message: Any) -> None:
            try:
                if message.attempt == 1:
                    await for_ever()
            finally:
                await asyncio.sleep(0)
                steps.append(message.attempt)

    async with running(Orders):
        await stage.publish("slow")
        await stage.everything_is_settled(Orders)
    assert steps == [1, 2]


async def test_handler_that_swallows_its_timeout_spares_the_next_message(stage: Stage) -> None:
    seen = []

    class Orders(stage.Push):
        handler_timeout = 0.2
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            if message.data == b"slow":
                with suppress(asyncio.CancelledError):
                    await for_ever()
            inner = asyncio.create_task(asyncio.sleep(0))
            await inner
            seen.append((message.data, message.attempt, asyncio.current_task().cancelling()))

    async with running(Orders):
        await stage.publish("slow", "next")
        await stage.everything_is_settled(Orders)
    assert [data for data, *_ in seen] == [b"slow", b"next"]
    assert seen[-1] == (b"next", 1, 0)


async def test_handler_that_turns_its_timeout_into_an_error_spares_the_next_message(
    stage: Stage,
) -> None:
    seen = []

    class Orders(stage.Push):
        handler_timeout = 0.05

        async def handle_message(self, message: Any) -> None:
            if message.data == b"slow" and message.attempt == 1:
                try:
                    await for_ever()
                except asyncio.CancelledError:
                    raise ValueError("too slow") from None
            await asyncio.sleep(0)
            seen.append((message.data, asyncio.current_task().cancelling()))

    async with running(Orders):
        await stage.publish("slow", "next")
        await stage.everything_is_settled(Orders)
    assert sorted(seen) == [(b"next", 0), (b"slow", 0)]


@pytest.mark.parametrize(
    ("base", "middleware"),
    [("Pull", []), ("Push", []), ("Pull", ["nats_consumer.logs.current_message_is_known"])],
    ids=["pull", "push", "middleware"],
)
async def test_blocking_methods_that_hold_all_threads_after_their_timeout_lose_no_other_message(
    stage: Stage,
    base: str,
    middleware: list[str],
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "middleware": middleware}
    go_on = threading.Event()
    handled: list[bytes] = []
    given_up: list[bytes] = []

    class Handler(ConsumerHandler):
        @handle("*.created")
        def created(self, message: Any) -> None:
            if message.data == b"hangs":
                go_on.wait(timeout=60)
            handled.append(message.data)

    class Orders(getattr(stage, base)):  # type: ignore[misc]
        concurrency = 2
        handler_timeout = 0.2
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.ACK
        handler = Handler()

        async def handle_message(self, message: Any) -> None:
            await self.handler.handle(message)

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            given_up.append(message.data)

    caplog.set_level("INFO", "nats_consumer")
    async with running(Orders) as orders:
        await stage.publish("hangs", "hangs", "one", "two", "three")
        await becomes_true(lambda: "Orders: all its threads (2) are held" in caplog.text)
        await becomes_true(lambda: orders.state == "stuck")
        go_on.set()
        await becomes_true(lambda: {b"one", b"two", b"three"} <= set(handled), within=60)
        await stage.everything_is_settled(Orders)
        await becomes_true(lambda: orders.state == "consuming")
    assert given_up == [b"hangs", b"hangs"]
    assert "in created > " in caplog.text
    assert "Orders: a thread is free again" in caplog.text


@pytest.mark.parametrize("middleware", [[], ["nats_consumer.logs.current_message_is_known"]])
async def test_a_hung_query_loses_no_message_of_handlers_that_share_its_thread(
    stage: Stage, middleware: list[str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "middleware": middleware}
    # As with SQLite as Django sets it up.
    monkeypatch.setattr(own_thread, "has_one_writer", lambda: True)
    begun, go_on = threading.Event(), threading.Event()
    handled: list[bytes] = []
    given_up: list[bytes] = []

    def query(payload: bytes) -> None:
        if payload == b"hangs":
            begun.set()
            go_on.wait(timeout=60)
        handled.append(payload)

    class Orders(stage.Pull):
        handler_timeout = 0.2
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            await sync_to_async(query)(message.data)

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            given_up.append(message.data)

    async with running(Orders) as orders:
        await stage.publish("hangs")
        await becomes_true(begun.is_set)
        await stage.publish("one", "two")
        await becomes_true(lambda: orders._consumption.counters()["failed"] >= 3)
        go_on.set()
        await becomes_true(lambda: {b"one", b"two"} <= set(handled))
        await stage.everything_is_settled(Orders)
    assert given_up == [b"hangs"]


async def test_quick_handlers_are_not_touched(stage: Stage) -> None:
    class Orders(stage.Pull):
        handler_timeout = 5.0

        async def handle_message(self, message: Any) -> None:
            await asyncio.sleep(0)

    async with running(Orders) as orders:
        await stage.publish(*range(50))
        await stage.everything_is_settled(Orders)
        assert (orders.total_success_count, orders.total_error_count) == (50, 0)
