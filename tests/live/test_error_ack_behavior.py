"""Decisions about a message whose last attempt has failed."""

import time
from typing import Any

import pytest

from nats_consumer import Ack, DeadLetter, Drop, ErrorAckBehavior, Retry
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


def failing(stage: Stage, behavior: ErrorAckBehavior, **attributes: Any) -> type:
    """A consumer whose every attempt fails, two a message."""

    async def handle_message(self: Any, message: Any) -> None:
        self.attempts.append((message.attempt, time.monotonic()))
        raise ValueError("no")

    return type(
        "Orders",
        (stage.Pull,),
        {
            "attempts": [],
            "max_retries": 1,
            "handle_error_ack_behavior": behavior,
            "handle_message": handle_message,
            **attributes,
        },
    )


async def test_ack_moves_on(stage: Stage) -> None:
    consumer = failing(stage, ErrorAckBehavior.ACK)
    async with running(consumer) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
        assert orders.total_error_count == 1
    assert len(consumer.attempts) == 2
    assert stage.consumer(consumer)["ack_floor"]["stream_seq"] == 1


async def test_nak_hands_it_back_after_the_longest_delay_and_never_loses_it(stage: Stage) -> None:
    consumer = failing(stage, ErrorAckBehavior.NAK, max_retry_delay=0.3)
    async with running(consumer) as orders:
        await stage.publish("one")
        await becomes_true(lambda: len(consumer.attempts) == 4)
        assert stage.consumer(consumer)["ack_floor"]["stream_seq"] == 0
        await becomes_true(lambda: orders.total_error_count >= 1)
    times = [moment for _, moment in consumer.attempts]
    assert times[2] - times[1] >= 0.3
    assert times[3] - times[2] >= 0.3


async def test_handle_error_that_settles_has_the_final_word(stage: Stage) -> None:
    async def handle_error(self: Any, message: Any, error: Exception, attempt: int) -> None:
        await message.term("it cannot be helped")

    behavior = ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
    consumer = failing(stage, behavior, handle_error=handle_error)
    async with running(consumer) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
        await becomes_true(lambda: orders.total_error_count == 1)
    assert len(consumer.attempts) == 2


async def test_handle_error_that_settles_nothing_has_the_message_handed_back(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle_error(self: Any, message: Any, error: Exception, attempt: int) -> None: ...

    behavior = ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
    consumer = failing(stage, behavior, handle_error=handle_error, max_retry_delay=0.2)
    async with running(consumer):
        await stage.publish("one")
        await becomes_true(lambda: len(consumer.attempts) == 3)
    times = [moment for _, moment in consumer.attempts]
    assert times[2] - times[1] >= 0.2
    assert "leaves settling to handle_error, which settled nothing" in caplog.text


async def test_term_discards_it(stage: Stage) -> None:
    consumer = failing(stage, ErrorAckBehavior.TERM)
    async with running(consumer):
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
    assert len(consumer.attempts) == 2


async def test_dead_letter_keeps_it(stage: Stage) -> None:
    consumer = failing(stage, ErrorAckBehavior.DEAD_LETTER)
    async with running(consumer):
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
    assert stage.server.stream(f"{stage.stream}-dlq")["state"]["messages"] == 1
    assert len(consumer.attempts) == 2


async def test_message_is_not_lost_when_handle_error_raises(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle_error(self: Any, message: Any, error: Exception, attempt: int) -> None:
        raise RuntimeError("handle_error is broken")

    behavior = ErrorAckBehavior.ACK
    consumer = failing(stage, behavior, handle_error=handle_error, max_retry_delay=30.0)
    async with running(consumer) as orders:
        await stage.publish("one")
        await becomes_true(lambda: orders.total_error_count == 1)
        await stage.publish("two")
        await becomes_true(lambda: orders.total_error_count == 2)
        assert stage.consumer(consumer)["num_ack_pending"] == 2
    assert "handle_error is broken" in caplog.text


@pytest.mark.parametrize("raises", [True, False])
async def test_outcome_of_handle_error_wins_over_the_behavior(stage: Stage, raises: bool) -> None:
    async def handle_error(self: Any, message: Any, error: Exception, attempt: int) -> Any:
        words = {b"drop": Drop("no"), b"ack": Ack(), b"dead": DeadLetter("no"), b"again": Retry(30)}
        if raises:
            raise words[message.data]
        return words[message.data]

    consumer = failing(stage, ErrorAckBehavior.TERM, handle_error=handle_error)
    async with running(consumer) as orders:
        await stage.publish("drop", "ack", "dead", "again")
        await becomes_true(lambda: orders.total_error_count == 4)
        await becomes_true(lambda: stage.consumer(consumer)["num_ack_pending"] == 1)
    assert stage.consumer(consumer)["ack_floor"]["stream_seq"] == 3
    assert stage.server.stream(f"{stage.stream}-dlq")["state"]["messages"] == 1
