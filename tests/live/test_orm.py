"""Handlers that use the database."""

import threading
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction

from nats_consumer import ConsumerHandler, handle
from nats_consumer.lanes import own_thread
from nats_consumer.outcomes import Ack
from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.stage import Stage, running
from tests.project.orders.models import Receipt
from tests.waiting import becomes_true

pytestmark = [pytest.mark.anyio, pytest.mark.django_db(transaction=True)]


def numbers() -> list[int]:
    return sorted(Receipt.objects.values_list("number", flat=True))


async def test_plain_def_handlers_write_from_several_threads(stage: Stage) -> None:
    both = threading.Barrier(2)

    class Orders(stage.Pull):
        concurrency = 2

        def handle_message(self, message: Any) -> None:
            number = int(message.data)
            if number < 2:
                both.wait(timeout=10)  # neither goes on before the other has begun
            Receipt.objects.create(number=number, thread=threading.current_thread().name)

    async with running(Orders):
        await stage.publish(*range(30))
        await stage.everything_is_settled(Orders)
    assert await sync_to_async(numbers)() == list(range(30))
    threads = Receipt.objects.values_list("thread", flat=True).distinct()
    assert set(await sync_to_async(list)(threads)) == {"Orders-1", "Orders-2"}


async def test_a_thread_that_has_been_idle_for_a_second_has_no_connection(stage: Stage) -> None:
    wrappers: list[Any] = []

    class Orders(stage.Pull):
        concurrency = 1

        def handle_message(self, message: Any) -> None:
            Receipt.objects.create(number=int(message.data), thread="")
            wrappers.append((connections["default"], connections["default"].connection))

    async with running(Orders):
        await stage.publish(1, 2)
        await becomes_true(lambda: len(wrappers) == 2)
        (wrapper, first), (_, second) = wrappers
        assert first is second
        await becomes_true(lambda: wrapper.connection is None)


async def test_transaction_of_a_failed_attempt_is_rolled_back(stage: Stage) -> None:
    class Orders(stage.Pull):
        def handle_message(self, message: Any) -> None:
            with transaction.atomic():
                Receipt.objects.create(number=message.attempt, thread="")
                if message.attempt == 1:
                    raise ValueError("no")

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert await sync_to_async(numbers)() == [2]


async def test_async_handlers_write_with_the_async_interface(stage: Stage) -> None:
    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            await Receipt.objects.acreate(number=int(message.data), thread="")

    async with running(Orders):
        await stage.publish(*range(30))
        await stage.everything_is_settled(Orders)
    assert await sync_to_async(numbers)() == list(range(30))


async def test_async_handlers_write_with_sync_to_async(stage: Stage) -> None:
    @sync_to_async
    def write(number: int) -> None:
        with transaction.atomic():
            Receipt.objects.create(number=number, thread=threading.current_thread().name)

    class Orders(stage.Push):
        async def handle_message(self, message: Any) -> None:
            await write(int(message.data))

    async with running(Orders):
        await stage.publish(*range(30))
        await stage.everything_is_settled(Orders)
    assert await sync_to_async(numbers)() == list(range(30))


async def test_async_handler_that_queries_without_await_is_told_so(stage: Stage) -> None:
    errors = []

    class Orders(stage.Pull):
        max_retries = 0

        async def handle_message(self, message: Any) -> None:
            Receipt.objects.count()

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            errors.append(str(error))
            await message.ack()

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert len(errors) == 1
    assert "async context" in errors[0]


async def test_an_ack_raised_in_a_transaction_does_not_lose_the_work(stage: Stage) -> None:
    errors = []

    class Orders(stage.Pull):
        max_retries = 0

        def handle_message(self, message: Any) -> None:
            Receipt.objects.create(number=1, thread="")
            with transaction.atomic():
                Receipt.objects.create(number=2, thread="")
                raise Ack

        def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            errors.append(str(error))
            message.ack()

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        assert orders.total_success_count == 0
    assert await sync_to_async(numbers)() == [1]
    assert "rolled back what the handler did" in errors[0]


async def test_an_ack_may_be_returned_in_a_transaction_or_raised_after_it(stage: Stage) -> None:
    class Orders(stage.Pull):
        def handle_message(self, message: Any) -> Any:
            with transaction.atomic():
                Receipt.objects.create(number=int(message.data), thread="")
                if message.data == b"1":
                    return Ack()
            raise Ack

    async with running(Orders) as orders:
        await stage.publish(1, 2)
        await stage.everything_is_settled(Orders)
        assert orders.total_success_count == 2
    assert await sync_to_async(numbers)() == [1, 2]


async def test_an_async_method_that_a_def_handler_calls_is_in_its_transaction(
    stage: Stage,
) -> None:
    class Handler(ConsumerHandler):
        @handle(">")
        async def write(self, message: Any) -> None:
            await Receipt.objects.acreate(number=message.attempt, thread="")
            assert await Receipt.objects.filter(number=0).acount() == 1

    class Orders(stage.Pull):
        handler = Handler()

        def handle_message(self, message: Any) -> None:
            with transaction.atomic():
                Receipt.objects.create(number=0, thread="")
                self.handler.handle(message)
                if message.attempt == 1:
                    raise ValueError("roll it back")

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert await sync_to_async(numbers)() == [0, 2]


@pytest.fixture
def own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with any database but SQLite as Django sets it up."""
    monkeypatch.setattr(own_thread, "_threads", own_thread._Threads())
    monkeypatch.setattr(own_thread, "has_one_writer", lambda: False)


@pytest.mark.usefixtures("own_threads")
async def test_async_handlers_that_run_at_once_have_a_connection_each(stage: Stage) -> None:
    both = threading.Barrier(2)
    used: list[tuple[Any, Any]] = []

    def connected() -> Any:
        connections["default"].ensure_connection()
        return connections["default"].connection

    class Orders(stage.Pull):
        concurrency = 2

        async def handle_message(self, message: Any) -> None:
            first = await sync_to_async(connected)()
            # Neither goes on before the other has begun.
            await sync_to_async(both.wait)(timeout=30)
            used.append((first, await sync_to_async(connected)()))

    async with running(Orders):
        await stage.publish(1, 2)
        await stage.everything_is_settled(Orders)
    (first, first_again), (second, second_again) = used
    assert first is first_again
    assert second is second_again
    assert first is not second
    await becomes_true(lambda: not own_thread.end_threads())


@pytest.mark.usefixtures("own_threads")
async def test_the_thread_of_an_async_handler_is_free_when_it_has_ended(stage: Stage) -> None:
    class Orders(stage.Push):
        concurrency = 5

        async def handle_message(self, message: Any) -> None:
            number = int(message.data)
            await Receipt.objects.acreate(number=number, thread="")
            if number % 2 and message.attempt == 1:
                raise ValueError("again")

    async with running(Orders):
        await stage.publish(*range(30))
        await stage.everything_is_settled(Orders)
        await becomes_true(
            lambda: len(own_thread._threads._free) == len(own_thread._threads._all) > 0
        )
    await becomes_true(lambda: not own_thread.end_threads())


@pytest.mark.usefixtures("own_threads")
async def test_async_batches_write_with_the_async_interface(stage: Stage) -> None:
    class Orders(stage.Pull):
        max_batch = 5

        async def handle_batch(self, messages: Any) -> None:
            for message in messages:
                await Receipt.objects.acreate(number=int(message.data), thread="")

    async with running(Orders):
        await stage.publish(*range(20))
        await stage.everything_is_settled(Orders)
        await becomes_true(
            lambda: len(own_thread._threads._free) == len(own_thread._threads._all) > 0
        )
    assert set(await sync_to_async(numbers)()) == set(range(20))
    await becomes_true(lambda: not own_thread.end_threads())
