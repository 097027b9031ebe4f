"""Outcomes that a handler raises or returns."""

import logging
import time
from datetime import timedelta
from typing import Any

import pytest

from nats_consumer import Ack, DeadLetter, Drop, Outcome, Retry, _native
from nats_consumer.connect.log import LogPump
from tests.live.support.stage import Stage, running

pytestmark = pytest.mark.anyio


def answering(stage: Stage, outcome: Outcome, how: str) -> type:
    """A consumer that answers each first attempt with the outcome: "raises" it or "returns" it, as
    an "async" or a plain "def" handler."""

    def answer(self: Any, message: Any) -> Any:
        self.attempts.append((message.attempt, time.monotonic()))
        if message.attempt > 1:
            return None
        if "raises" in how:
            raise outcome
        return outcome

    async def async_answer(self: Any, message: Any) -> Any:
        return answer(self, message)

    def handle_error(self: Any, *_: Any) -> None:
        self.attempts.append("handle_error")

    return type(
        "Orders",
        (stage.Pull,),
        {
            "attempts": [],
            "initial_retry_delay": 0.2,
            "handle_message": async_answer if "async" in how else answer,
            "handle_error": handle_error,
        },
    )


@pytest.fixture(params=["async raises", "async returns", "def raises", "def returns"])
def how(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("after", [0.3, timedelta(milliseconds=300)])
async def test_retry_comes_again_after_the_delay_it_asks_for(
    stage: Stage, how: str, after: Any
) -> None:
    consumer = answering(stage, Retry(after), how)
    async with running(consumer) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
        assert (orders.total_success_count, orders.total_error_count) == (1, 0)
    (first, began), (second, ended) = consumer.attempts
    assert (first, second) == (1, 2)
    assert ended - began >= 0.3


async def test_retry_without_a_delay_takes_the_consumers_own(stage: Stage, how: str) -> None:
    consumer = answering(stage, Retry(), how)
    async with running(consumer):
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
    (_, began), (_, ended) = consumer.attempts
    assert ended - began >= 0.2


async def test_class_of_an_outcome_stands_for_an_instance(stage: Stage, how: str) -> None:
    consumer = answering(stage, Retry, how)  # type: ignore[arg-type]
    async with running(consumer) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
        assert (orders.total_success_count, orders.total_error_count) == (1, 0)
    assert [attempt for attempt, _ in consumer.attempts] == [1, 2]


async def test_class_of_an_outcome_that_needs_a_reason_is_a_failed_attempt(
    stage: Stage, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = answering(stage, DeadLetter, how)  # type: ignore[arg-type]
    async with running(consumer):
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
    assert [attempt for attempt, _ in consumer.attempts] == [1, 2]
    assert "reason" in caplog.text


async def test_drop_discards_at_the_first_attempt(stage: Stage, how: str) -> None:
    consumer = answering(stage, Drop("nobody wants it"), how)
    async with running(consumer) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
        assert (orders.total_success_count, orders.total_error_count) == (0, 0)
    assert len(consumer.attempts) == 1


async def test_the_reason_of_a_drop_is_in_the_log(
    stage: Stage, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = answering(stage, Drop("nobody\nwants it"), how)
    with caplog.at_level(logging.INFO, "nats_consumer"), LogPump(_native.take_logs):
        async with running(consumer):
            await stage.publish("one")
            await stage.everything_is_settled(consumer)
    assert (
        "Orders: A message is dropped: nobody wants it "
        f"(subject={stage.stream}.created, sequence=1)" in caplog.messages
    )


async def test_dead_letter_keeps_the_message_at_the_first_attempt(stage: Stage, how: str) -> None:
    consumer = answering(stage, DeadLetter("it is poison"), how)
    async with running(consumer):
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
    assert len(consumer.attempts) == 1
    assert stage.server.stream(f"{stage.stream}-dlq")["state"]["messages"] == 1


async def test_the_reason_of_a_dead_letter_is_in_the_log(
    stage: Stage, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = answering(stage, DeadLetter("it is\npoison"), how)
    with LogPump(_native.take_logs):
        async with running(consumer):
            await stage.publish("one")
            await stage.everything_is_settled(consumer)
    assert (
        "Orders: A message becomes a dead letter: it is poison "
        f"(subject={stage.stream}.created, sequence=1)" in caplog.messages
    )


async def test_ack_is_a_success(stage: Stage, how: str) -> None:
    consumer = answering(stage, Ack(), how)
    async with running(consumer) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
        assert (orders.total_success_count, orders.total_error_count) == (1, 0)
    assert len(consumer.attempts) == 1


@pytest.mark.parametrize("how", ["async", "def"])
async def test_outcome_that_makes_no_sense_is_a_failed_attempt(stage: Stage, how: str) -> None:
    outcome = Retry(1)
    outcome.after = "soon"
    consumer = answering(stage, outcome, f"{how} returns")
    async with running(consumer) as orders:
        await stage.publish("one", "two")
        await stage.everything_is_settled(consumer)
        assert (orders.total_success_count, orders.total_error_count) == (2, 0)
    assert sorted(attempt for attempt, _ in consumer.attempts) == [1, 1, 2, 2]
