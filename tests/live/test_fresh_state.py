"""No handler sees state that the handler of another message left behind."""

import asyncio
import contextvars
import logging
import threading
from typing import Any

import pytest
from django.utils import timezone, translation

from nats_consumer import ErrorAckBehavior
from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

tenant = contextvars.ContextVar("tenant", default="nobody")


def state() -> tuple[str, str, str]:
    return tenant.get(), translation.get_language() or "", timezone.get_current_timezone_name()


def leave_state_behind() -> None:
    tenant.set("alice")
    translation.activate("de")
    timezone.activate("Asia/Tokyo")


@pytest.mark.parametrize("limit", [None, 30])
@pytest.mark.parametrize("lane", ["loop", "thread"])
async def test_a_handler_does_not_see_the_language_of_the_message_before(
    stage: Stage, lane: str, limit: float | None
) -> None:
    seen: list[tuple[str, str, str]] = []

    def handle(message: Any) -> None:
        seen.append(state())
        leave_state_behind()

    class Threads(stage.Pull):
        concurrency = 1
        handler_timeout = limit

        def handle_message(self, message: Any) -> None:
            handle(message)

    class Loop(stage.Pull):
        concurrency = 1
        handler_timeout = limit

        async def handle_message(self, message: Any) -> None:
            handle(message)

    consumer = Loop if lane == "loop" else Threads
    async with running(consumer):
        await stage.publish(1, 2, 3)
        await stage.everything_is_settled(consumer)
    assert len(seen) == 3
    assert set(seen) == {state()}


@pytest.mark.parametrize("lane", ["loop", "thread"])
async def test_handle_error_and_the_log_see_the_context_of_the_handler(
    stage: Stage, lane: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    logged: list[str] = []

    class Noting(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if "failed with" in record.getMessage():
                logged.append(tenant.get())
            return True

    class Threads(stage.Pull):
        max_retries = 1
        retry_delay = 0

        def handle_message(self, message: Any) -> None:
            tenant.set("alice")
            raise ValueError("no")

        def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            seen.append(tenant.get())

    class Loop(stage.Pull):
        max_retries = 1
        retry_delay = 0

        async def handle_message(self, message: Any) -> None:
            tenant.set("alice")
            raise ValueError("no")

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            seen.append(tenant.get())

    consumer = Loop if lane == "loop" else Threads
    logger, noting = logging.getLogger("nats_consumer.handler"), Noting()
    logger.addFilter(noting)
    try:
        async with running(consumer):
            await stage.publish("one")
            await becomes_true(lambda: seen)
    finally:
        logger.removeFilter(noting)
    assert seen == ["alice"]
    assert logged == ["alice", "alice"]


async def test_handle_error_of_a_late_def_handler_sees_the_context_of_the_handler(
    stage: Stage,
) -> None:
    seen: list[str] = []
    release = threading.Event()

    class Orders(stage.Pull):
        max_retries = 0
        handler_timeout = 0.1
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        def handle_message(self, message: Any) -> None:
            tenant.set("alice")
            release.wait(10)

        def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            seen.append(tenant.get())

    async with running(Orders):
        await stage.publish("one")
        try:
            await becomes_true(lambda: seen)
        finally:
            release.set()
    assert seen == ["alice"]


async def test_a_handler_that_cancels_its_task_leaves_no_count_to_the_next_one(
    stage: Stage,
) -> None:
    counts: list[int] = []

    class Orders(stage.Pull):
        concurrency = 1

        async def handle_message(self, message: Any) -> None:
            task = asyncio.current_task()
            assert task
            counts.append(task.cancelling())
            task.cancel()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                return

    async with running(Orders) as orders:
        await stage.publish(1, 2, 3)
        await stage.everything_is_settled(Orders)
        assert orders.total_success_count == 3
    assert counts == [0, 0, 0]


async def test_done_callbacks_and_names_of_a_task_end_with_its_message(stage: Stage) -> None:
    done: list[str] = []
    names: list[bool] = []

    class Orders(stage.Pull):
        concurrency = 1

        async def handle_message(self, message: Any) -> None:
            task = asyncio.current_task()
            assert task
            names.append("mine" in task.get_name())
            task.set_name("mine")
            number = message.data.decode()
            task.add_done_callback(lambda _: done.append(number))

    async with running(Orders):
        await stage.publish(1, 2, 3)
        await stage.everything_is_settled(Orders)
        await becomes_true(lambda: len(done) == 3)
    assert done == ["1", "2", "3"]
    assert names == [False, False, False]
