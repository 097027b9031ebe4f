"""A message is not done while the work that its handler began is not."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nats_consumer import ConsumerHandler, ErrorAckBehavior, handle
from nats_consumer.outcomes import Ack, DeadLetter, Retry
from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


async def nothing() -> None:
    await asyncio.sleep(0)


def generator() -> Iterator[int]:
    yield 1


def in_a_pool() -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(int)


RETURNED = {
    "gather": lambda: asyncio.gather(nothing()),
    "task": lambda: asyncio.ensure_future(nothing()),
    "future": lambda: asyncio.get_running_loop().run_in_executor(None, int),
    "generator": generator,
    "pool": in_a_pool,
}


@pytest.mark.parametrize("kind", RETURNED)
async def test_work_that_is_returned_and_not_awaited_is_a_failed_attempt(
    stage: Stage, kind: str
) -> None:
    errors: list[str] = []

    class Orders(stage.Pull):
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> Any:
            return RETURNED[kind]()

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            errors.append(str(error))

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        assert orders.total_success_count == 0
    (error,) = errors
    assert error.startswith("handle_message returned a ")


async def test_a_def_handler_that_returns_a_future_of_a_pool_has_failed(stage: Stage) -> None:
    errors: list[str] = []

    class Orders(stage.Pull):
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        def handle_message(self, message: Any) -> Any:
            return in_a_pool()

        def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            errors.append(str(error))

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert "future of a thread pool" in errors[0]


@pytest.mark.parametrize("lane", ["loop", "thread"])
@pytest.mark.parametrize("event", ["submitted", "other"])
async def test_unfinished_work_of_a_method_is_not_acknowledged(
    stage: Stage, lane: str, event: str
) -> None:
    """A handle_message that drops what handle() answers, as the guide has it."""
    errors: list[str] = []

    class Handler(ConsumerHandler):
        @handle("*.submitted")
        def submitted(self, message: Any) -> Any:
            return in_a_pool()

        def fallback_handle(self, msg: Any, reason: str = "unknown") -> Any:
            return in_a_pool()

    class Base(stage.Pull):
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.ACK
        handler = Handler()

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            errors.append(str(error))

    class Loop(Base):
        async def handle_message(self, message: Any) -> None:
            await self.handler.handle(message)

    class Threads(Base):
        def handle_message(self, message: Any) -> None:
            self.handler.handle(message)

    consumer = Loop if lane == "loop" else Threads
    async with running(consumer) as orders:
        await stage.publish("one", event=event)
        await stage.everything_is_settled(consumer)
        assert orders.total_success_count == 0
    name = "submitted" if event == "submitted" else "fallback_handle"
    assert errors[0].startswith(f"{name} returned a future of a thread pool")


@pytest.mark.parametrize("lane", ["loop", "thread"])
async def test_a_method_that_returns_retry_is_called_again(stage: Stage, lane: str) -> None:
    attempts: list[int] = []

    class Handler(ConsumerHandler):
        @handle("*.created")
        async def created(self, message: Any) -> Any:
            attempts.append(message.attempt)
            return Retry(after=0) if message.attempt == 1 else None

    class Loop(stage.Pull):
        handler = Handler()

        async def handle_message(self, message: Any) -> None:
            await self.handler.handle(message)

    class Threads(stage.Pull):
        handler = Handler()

        def handle_message(self, message: Any) -> None:
            self.handler.handle(message)

    consumer = Loop if lane == "loop" else Threads
    async with running(consumer):
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
    assert attempts == [1, 2]


@pytest.mark.parametrize("lane", ["loop", "thread"])
async def test_a_handler_may_return_what_ack_returns(stage: Stage, lane: str) -> None:
    class Threads(stage.Pull):
        def handle_message(self, message: Any) -> Any:
            return message.ack()

    class Loop(stage.Pull):
        async def handle_message(self, message: Any) -> Any:
            return message.ack()

    consumer = Loop if lane == "loop" else Threads
    async with running(consumer) as orders:
        await stage.publish("one")
        await becomes_true(lambda: orders.total_success_count == 1)


async def test_a_timeout_that_the_handler_swallows_is_a_failed_attempt(stage: Stage) -> None:
    errors: list[BaseException] = []

    class Orders(stage.Pull):
        max_retries = 0
        handler_timeout = 0.1
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            try:
                await asyncio.Event().wait()
            except BaseException:
                if message.data == b"outcome":
                    raise Ack() from None

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            errors.append(error)

    async with running(Orders) as orders:
        await stage.publish("return", "outcome")
        await stage.everything_is_settled(Orders)
        assert orders.total_success_count == 0
    assert [type(error) for error in errors] == [TimeoutError, TimeoutError]


async def in_a_group(*errors: BaseException) -> None:
    async def fail(error: BaseException) -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        for error in errors:
            group.create_task(fail(error))


async def test_an_outcome_that_a_child_of_a_task_group_raises_counts(stage: Stage) -> None:
    seen: list[tuple[bytes, int]] = []

    class Orders(stage.Pull):
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            seen.append((message.data, message.attempt))
            if message.data == b"ack":
                await in_a_group(Ack(), Ack())
            elif message.data == b"letter":
                await in_a_group(ValueError("an error"), DeadLetter("a child says so"))
            elif message.attempt == 1:
                await in_a_group(Retry(after=0))

    async with running(Orders) as orders:
        await stage.publish("ack", "letter", "retry")
        await stage.everything_is_settled(Orders)
        await becomes_true(lambda: (b"retry", 2) in seen)
        assert orders.total_error_count == 0
    assert stage.server.stream(f"{stage.stream}-dlq")["state"]["messages"] == 1


async def test_the_log_names_the_errors_of_a_task_group(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    class Orders(stage.Pull):
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            await in_a_group(ValueError("customer 1"), Ack(), LookupError("customer 2"))

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        assert orders.total_success_count == 0
    assert "ValueError: customer 1; Ack: Ack(); LookupError: customer 2" in caplog.text
