"""Retries, by a real server's redelivery."""

import time
from itertools import pairwise
from typing import Any

import pytest

from nats_consumer import ErrorAckBehavior, JetstreamPullConsumer
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


async def test_return_acknowledges(stage: Stage) -> None:
    seen = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            seen.append(message.data)

    async with running(Orders):
        await stage.publish("one", "two")
        await stage.everything_is_settled(Orders)
    assert seen == [b"one", b"two"]
    assert stage.consumer(Orders)["num_redelivered"] == 0


async def test_failing_message_is_tried_with_growing_delays_until_it_succeeds(
    stage: Stage,
) -> None:
    attempts: list[tuple[int, int]] = []
    times: list[float] = []

    class Orders(stage.Pull):
        initial_retry_delay = 0.1
        backoff_factor = 2.0

        async def handle_message(self, message: Any) -> None:
            attempts.append((message.attempt, message.metadata.num_delivered))
            times.append(time.monotonic())
            if len(attempts) < 4:
                raise ValueError(f"not yet, {len(attempts)}")

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        assert (orders.total_success_count, orders.total_error_count) == (1, 0)
    assert attempts == [(1, 1), (2, 2), (3, 3), (4, 4)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    for gap, delay in zip(gaps, [0.1, 0.2, 0.4], strict=True):
        assert gap >= delay


async def test_no_retry_waits_longer_than_max_retry_delay(stage: Stage) -> None:
    attempts = []

    class Orders(stage.Pull):
        max_retries = 4
        initial_retry_delay = 0.01
        backoff_factor = 1000.0
        max_retry_delay = 0.1
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            attempts.append(message.attempt)
            raise ValueError("never")

    async with running(Orders):
        await stage.publish("one")
        # By the uncapped schedule the third attempt alone would come after 10 s.
        await becomes_true(lambda: len(attempts) == 5, within=5)


async def test_explicit_delays_count_all_attempts_and_the_last_one_repeats(stage: Stage) -> None:
    times: list[float] = []
    errors = []

    class Orders(JetstreamPullConsumer):
        stream_name = stage.stream
        filter_subject = ">"
        max_deliver = 4
        backoff_delays = [0.05, 0.2]
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            times.append(time.monotonic())
            raise ValueError(message.attempt)

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            errors.append(attempt)

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert errors == [4]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    for gap, delay in zip(gaps, [0.05, 0.2, 0.2], strict=True):
        assert gap >= delay


async def test_handle_error_is_called_once_with_the_last_error(stage: Stage) -> None:
    calls = []

    class Orders(stage.Pull):
        max_retries = 2
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            raise ValueError(f"attempt {message.attempt}")

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            calls.append((message.data, repr(error), attempt, message.is_acked))

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        assert (orders.total_success_count, orders.total_error_count) == (0, 1)
    assert calls == [(b"one", "ValueError('attempt 3')", 3, False)]


async def test_no_retries_means_one_attempt(stage: Stage) -> None:
    calls = []

    class Orders(stage.Push):
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            calls.append("handled")
            raise ValueError("no")

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            calls.append(f"gave up after {attempt}")

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert calls == ["handled", "gave up after 1"]


async def test_messages_behind_a_failing_one_do_not_wait_for_it(stage: Stage) -> None:
    seen = []

    class Orders(stage.Push):
        initial_retry_delay = 30.0

        async def handle_message(self, message: Any) -> None:
            seen.append(message.data)
            if message.data == b"bad":
                raise ValueError("no")

    async with running(Orders):
        await stage.publish("bad", "good", "better")
        await becomes_true(lambda: len(seen) == 3)
        await becomes_true(lambda: stage.consumer(Orders)["num_ack_pending"] == 1)
    assert seen == [b"bad", b"good", b"better"]


async def test_waiting_retry_survives_a_restart_of_the_worker(stage: Stage) -> None:
    attempts = []

    class Orders(stage.Pull):
        initial_retry_delay = 0.5

        async def handle_message(self, message: Any) -> None:
            attempts.append(message.attempt)
            if message.attempt == 1:
                raise ValueError("no")

    async with running(Orders):
        await stage.publish("one")
        await becomes_true(lambda: attempts == [1])
    async with running(Orders):
        await stage.everything_is_settled(Orders)
    assert attempts == [1, 2]


async def test_plain_def_is_retried_alike(stage: Stage) -> None:
    calls = []

    class Orders(stage.Pull):
        max_retries = 1
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        def handle_message(self, message: Any) -> None:
            calls.append(message.attempt)
            raise ValueError(f"attempt {message.attempt}")

        def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            calls.append((str(error), attempt))

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        assert orders.total_error_count == 1
    assert calls == [1, 2, ("attempt 2", 2)]
