"""Messages that the project's code settles itself: once, and nobody does it again."""

import asyncio
import threading
import time
from typing import Any

import pytest

from nats_consumer import ConsumerHandler, ErrorAckBehavior
from nats_consumer.exceptions import MessageAlreadySettled, RequestTimeout
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", ["ack", "term", "ack_sync"])
async def test_settled_by_an_async_handler_is_settled_once(stage: Stage, how: str) -> None:
    states = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            assert not message.is_acked
            await getattr(message, how)()
            states.append((message.is_acked, message._ackd, message.attempt))

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert orders.total_success_count == (how != "term")
    assert states == [(True, True, 1)]


@pytest.mark.parametrize("how", ["ack", "term", "ack_sync"])
async def test_settled_by_a_plain_def_handler_is_settled_once(stage: Stage, how: str) -> None:
    states = []

    class Orders(stage.Pull):
        def handle_message(self, message: Any) -> None:
            getattr(message, how)()
            states.append((message.is_acked, message.attempt))

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert orders.total_success_count == (how != "term")
    assert states == [(True, 1)]


@pytest.mark.parametrize("kind", ["Pull", "Push"])
async def test_nak_of_the_handler_brings_it_back_after_its_delay(stage: Stage, kind: str) -> None:
    times = []

    class Orders(getattr(stage, kind)):
        async def handle_message(self, message: Any) -> None:
            times.append(time.monotonic())
            if message.attempt == 1:
                await message.nak(delay=0.3)

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert len(times) == 2
    assert times[1] - times[0] >= 0.3


async def test_in_progress_may_be_said_often_and_settles_nothing(stage: Stage) -> None:
    states = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            await message.in_progress()
            await message.in_progress()
            states.append(message.is_acked)
            await message.ack()
            await message.in_progress()

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert states == [False]
    assert stage.consumer(Orders)["num_redelivered"] == 0


@pytest.mark.parametrize("second", ["ack", "nak", "term", "ack_sync"])
@pytest.mark.parametrize("first", ["ack", "nak", "term", "ack_sync"])
async def test_settling_twice_raises(stage: Stage, first: str, second: str) -> None:
    errors = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            if message.attempt > 1:
                return
            await getattr(message, first)()
            try:
                await getattr(message, second)()
            except MessageAlreadySettled as error:
                errors.append(str(error))

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        assert orders.total_error_count == 0
    assert len(errors) == 1
    assert "once" in errors[0]


async def test_settling_a_message_that_the_return_settled_raises(stage: Stage) -> None:
    kept = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            kept.append(message)

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        assert kept[0].is_acked
        with pytest.raises(MessageAlreadySettled):
            await kept[0].nak()
    assert stage.consumer(Orders)["num_redelivered"] == 0


@pytest.mark.parametrize("how", ["ack", "nak", "term"])
async def test_another_thread_may_settle_and_once_is_enough(stage: Stage, how: str) -> None:
    errors: list[BaseException] = []

    def settle(message: Any) -> None:
        try:
            getattr(message, how)()
        except MessageAlreadySettled as error:
            errors.append(error)

    class Orders(stage.Pull):
        def handle_message(self, message: Any) -> None:
            if message.attempt > 1:
                return
            threads = [threading.Thread(target=settle, args=[message]) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        assert orders.total_error_count == 0
    assert len(errors) == 7


@pytest.mark.parametrize("how", ["ack", "nak", "term"])
async def test_another_thread_that_settles_after_the_return_is_refused(
    stage: Stage, how: str
) -> None:
    kept: list[Any] = []

    class Orders(stage.Pull):
        def handle_message(self, message: Any) -> None:
            kept.append(message)

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        with pytest.raises(MessageAlreadySettled):
            await asyncio.to_thread(getattr(kept[0], how))
    assert stage.consumer(Orders)["num_redelivered"] == 0


async def test_error_after_the_handler_settled_is_not_retried(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    class Orders(stage.Pull):
        max_retries = 0

        async def handle_message(self, message: Any) -> None:
            calls.append(message.attempt)
            await message.ack()
            raise ValueError("too late")

        async def handle_error(self, *_: Any) -> None:
            calls.append("handle_error")

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        await becomes_true(lambda: "had settled the message itself" in caplog.text)
        assert (orders.total_success_count, orders.total_error_count) == (0, 0)
    assert calls == [1]


@pytest.mark.parametrize("how", ["ack", "term", "ack_sync"])
async def test_settled_in_handle_error_is_settled_once(stage: Stage, how: str) -> None:
    calls = []

    class Orders(stage.Pull):
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.NAK

        async def handle_message(self, message: Any) -> None:
            raise ValueError("no")

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            await getattr(message, how)()
            calls.append(message.is_acked)

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        await becomes_true(lambda: orders.total_error_count == 1)
    assert calls == [True]


class Shop(ConsumerHandler):
    """Acknowledges what it has no method for; its `def` sibling does so in a thread."""

    def __init__(self) -> None:
        super().__init__(["orders.created"])
        self.reasons: list[str] = []

    async def fallback_handle(self, msg: Any, reason: str = "unknown") -> None:
        await msg.ack()
        self.reasons.append(reason)


class BlockingShop(Shop):
    def fallback_handle(self, msg: Any, reason: str = "unknown") -> None:
        msg.ack()
        self.reasons.append(reason)


@pytest.mark.parametrize("handler_class", [Shop, BlockingShop])
@pytest.mark.parametrize("lane", ["async", "def"])
async def test_settled_in_fallback_handle_is_settled_once(
    stage: Stage, handler_class: type[Shop], lane: str
) -> None:
    handler = handler_class()

    async def in_the_loop(self: Any, message: Any) -> None:
        await self.handler.handle(message)

    def in_a_thread(self: Any, message: Any) -> None:
        self.handler.handle(message)

    handle_message = in_the_loop if lane == "async" else in_a_thread
    consumer = type("Orders", (stage.Pull,), {"handler": handler, "handle_message": handle_message})
    async with running(consumer) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
        await becomes_true(lambda: orders.total_success_count == 1)
    assert handler.reasons == ["unhandled_subject"]


async def test_default_fallback_hands_back_with_the_retry_delay(stage: Stage) -> None:
    times = []

    class Orders(stage.Pull):
        initial_retry_delay = 0.3
        handler = ConsumerHandler(["orders.created"])

        async def handle_message(self, message: Any) -> None:
            times.append(time.monotonic())
            if message.attempt == 1:
                await self.handler.handle(message)

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        assert orders.total_error_count == 0
    assert len(times) == 2
    assert times[1] - times[0] >= 0.3


async def test_nak_or_term_of_the_handler_counts_as_no_error(stage: Stage) -> None:
    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            if message.attempt == 1:
                await (message.nak() if message.data == b"nak" else message.term())

    async with running(Orders) as orders:
        await stage.publish("nak", "term")
        await stage.everything_is_settled(Orders)
        assert orders.total_error_count == 0


async def test_an_ack_sync_whose_answer_was_lost_can_be_repeated(stage: Stage) -> None:
    answers: list[object] = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            with stage.server.paused(), pytest.raises(RequestTimeout):
                await message.ack_sync(timeout=0.05)
            answers.append(await message.ack_sync(timeout=10))
            with pytest.raises(MessageAlreadySettled):
                await message.ack_sync()

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        await becomes_true(lambda: orders.total_success_count == 1)
    assert answers == [None]


async def test_so_can_that_of_a_clients_message(stage: Stage) -> None:
    await stage.publish("one")
    subscription = await stage.jetstream.pull_subscribe(f"{stage.stream}.>", "billing")
    (message,) = await subscription.fetch(timeout=5)
    with stage.server.paused(), pytest.raises(RequestTimeout):
        await message.ack_sync(timeout=0.05)
    assert not message.is_acked
    await message.ack_sync(timeout=10)
    assert message.is_acked
    assert (await subscription.consumer_info()).num_ack_pending == 0
