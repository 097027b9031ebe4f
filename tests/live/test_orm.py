"""Handlers that use the database."""

import threading
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.stage import Stage, running
from tests.project.orders.models import Receipt

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
