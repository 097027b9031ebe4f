"""A plain `def` handler that takes longer than handler_timeout: its thread cannot be ended, its
delivery can."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nats_consumer import Ack, ErrorAckBehavior, _native
from nats_consumer.connect.log import LogPump
from nats_consumer.exceptions import MessageAlreadySettled
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def engine_logs() -> Iterator[None]:
    """Carry the engine's log to Python, as under the command."""
    with LogPump(_native.take_logs):
        yield


KINDS = pytest.mark.parametrize("kind", ["Pull", "Push"])


@contextmanager
def gate() -> Iterator[threading.Event]:
    """An event that a handler may wait for; set at the end, whatever happens."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


def counters(orders: Any) -> dict[str, int]:
    return orders._consumption.counters()


@KINDS
async def test_it_is_retried_elsewhere_while_its_thread_still_runs(
    stage: Stage, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen = []

    class Orders(getattr(stage, kind)):
        concurrency = 2
        handler_timeout = 0.2

        def handle_message(self, message: Any) -> None:
            seen.append((message.attempt, threading.current_thread().name))
            if message.attempt == 1:
                release.wait(20)

    async with running(Orders) as orders:
        with gate() as release:
            await stage.publish("slow")
            await stage.everything_is_settled(Orders)
            assert not release.is_set()
            assert [attempt for attempt, _ in seen] == [1, 2]
            assert seen[0][1] != seen[1][1]
            found = counters(orders)
            assert (found["failed"], found["retried"], found["succeeded"]) == (1, 1, 1)
            assert found["in_flight"] == 1, "the late handler holds its place"
            await becomes_true(lambda: f"runs in the thread {seen[0][1]}" in caplog.text)
            assert "Orders: attempt 1 of" in caplog.text
            release.set()
            await becomes_true(lambda: counters(orders)["in_flight"] == 0)
            await becomes_true(lambda: "beyond handler_timeout" in caplog.text)
    assert counters(orders)["succeeded"] == 1


@pytest.mark.parametrize("last_words", ["returns", "raises", "acknowledges", "settles otherwise"])
async def test_what_a_late_handler_says_is_ignored(stage: Stage, last_words: str) -> None:
    attempts, refused = [], []

    class Orders(stage.Pull):
        concurrency = 2
        handler_timeout = 0.2
        initial_retry_delay = 1.0

        def handle_message(self, message: Any) -> Any:
            attempts.append(message.attempt)
            if message.attempt > 1:
                return None
            release.wait(20)
            if last_words == "raises":
                raise ValueError("too late")
            if last_words == "returns":
                return Ack()
            try:
                message.ack() if last_words == "acknowledges" else message.term()
            except MessageAlreadySettled as error:
                refused.append((error, message.is_acked))
                raise

    async with running(Orders) as orders:
        with gate() as release:
            await stage.publish("slow")
            await becomes_true(lambda: counters(orders)["retried"] == 1)
            release.set()
            await becomes_true(lambda: counters(orders)["in_flight"] == 0)
            assert attempts == [1], "it waits for its retry, unsettled"
            assert stage.consumer(Orders)["num_ack_pending"] == 1
            await stage.everything_is_settled(Orders)
            found = counters(orders)
            assert (found["failed"], found["succeeded"], found["dropped"]) == (1, 1, 0)
    assert attempts == [1, 2]
    assert [settled for _, settled in refused] == (
        [] if last_words[-4:] in ("urns", "ises") else [True]
    )


@KINDS
async def test_after_the_last_attempt_handle_error_runs_although_every_thread_is_held(
    stage: Stage, kind: str
) -> None:
    errors = []

    class Orders(getattr(stage, kind)):
        concurrency = 1
        handler_timeout = 0.2
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR

        def handle_message(self, message: Any) -> None:
            release.wait(20)
            with pytest.raises(MessageAlreadySettled):
                message.nak()

        def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            errors.append((type(error), "0.2 s" in str(error), attempt, message.is_acked))
            errors.append(threading.current_thread().name)
            message.ack()

    async with running(Orders) as orders:
        with gate() as release:
            await stage.publish("slow")
            await stage.everything_is_settled(Orders)
            assert not release.is_set()
            assert orders.total_error_count == 1
    assert errors == [(TimeoutError, True, 1, False), "Orders-late"]


async def test_handle_error_as_a_coroutine_may_decide_too(stage: Stage) -> None:
    class Orders(stage.Pull):
        concurrency = 1
        handler_timeout = 0.2
        max_retries = 0

        def handle_message(self, message: Any) -> None:
            release.wait(20)

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> Any:
            return Ack()

    async with running(Orders) as orders:
        with gate() as release:
            await stage.publish("slow")
            await stage.everything_is_settled(Orders)
            assert counters(orders)["exhausted"] == 1


async def test_its_dead_letter_says_that_it_timed_out(stage: Stage) -> None:
    class Orders(stage.Pull):
        concurrency = 1
        handler_timeout = 0.2
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.DEAD_LETTER

        def handle_message(self, message: Any) -> None:
            release.wait(20)

    async with running(Orders):
        with gate() as release:
            await stage.publish("slow")
            await stage.everything_is_settled(Orders)
            letter = await stage.jetstream.get_msg(f"{stage.stream}-dlq", seq=1)
    assert letter.data == b"slow"
    assert letter.headers["Dlq-Reason"] == "attempts exhausted"
    error = "TimeoutError: timed out after 0.2 s, the consumer's handler_timeout"
    assert letter.headers["Dlq-Error"] == error


async def test_what_it_settled_itself_in_time_stays_settled(stage: Stage) -> None:
    class Orders(stage.Pull):
        handler_timeout = 0.2

        def handle_message(self, message: Any) -> None:
            message.ack()
            release.wait(20)

    async with running(Orders) as orders:
        with gate() as release:
            await stage.publish("slow")
            await becomes_true(lambda: counters(orders)["failed"] == 1)
            await stage.everything_is_settled(Orders)
            assert counters(orders)["retried"] == 0


async def test_no_more_run_at_once_than_concurrency_says_and_the_log_tells_when_all_are_late(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    started = []

    class Orders(stage.Pull):
        concurrency = 2
        handler_timeout = 0.2
        initial_retry_delay = 0.01

        def handle_message(self, message: Any) -> None:
            started.append(message.data)
            if message.attempt == 1 and message.data in (b"0", b"1"):
                release.wait(20)

    async with running(Orders) as orders:
        with gate() as release:
            await stage.publish(0, 1)
            await becomes_true(lambda: "All 2 threads are held" in caplog.text)
            errors = [each for each in caplog.records if each.levelno == logging.ERROR]
            assert len(errors) == 1
            await stage.publish(2, 3)
            # They may be received, but they are not started.
            await becomes_true(
                lambda: (
                    counters(orders)["received"] > 2 or stage.consumer(Orders)["num_pending"] == 2
                )
            )
            assert sorted(started) == [b"0", b"1"]
            release.set()
            await stage.everything_is_settled(Orders)
    assert sorted(started) == [b"0", b"0", b"1", b"1", b"2", b"3"]


async def test_what_its_thread_had_taken_beside_it_is_handled_by_another(stage: Stage) -> None:
    """Threads of fast handlers take several messages at once."""
    seen = []

    class Orders(stage.Pull):
        concurrency = 2
        handler_timeout = 0.5

        def handle_message(self, message: Any) -> None:
            if message.data == b"slow" and message.attempt == 1:
                release.wait(20)
            seen.append(message.data)

    await stage.publish(*range(300), "slow", *range(300, 600))
    async with running(Orders):
        with gate() as release:
            await stage.everything_is_settled(Orders)
            assert not release.is_set()
            assert len(seen) == 601


async def test_a_drain_counts_a_late_handler_and_leaves_it_behind(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    class Orders(stage.Pull):
        concurrency = 2
        handler_timeout = 0.2
        handle_error_ack_behavior = ErrorAckBehavior.ACK
        max_retries = 0

        def handle_message(self, message: Any) -> None:
            release.wait(20)

    with gate() as release:
        async with running(Orders, drain=0.5):
            await stage.publish("slow")
            await stage.everything_is_settled(Orders)
        assert not release.is_set()
    assert "1. They are handed back; their threads continue until the process ends." in caplog.text


async def test_quick_blocking_handlers_are_not_touched(stage: Stage) -> None:
    class Orders(stage.Pull):
        handler_timeout = 5.0

        def handle_message(self, message: Any) -> None:
            if message.data == b"7" and message.attempt == 1:
                raise ValueError("no")

    async with running(Orders) as orders:
        await stage.publish(*range(50))
        await stage.everything_is_settled(Orders)
        found = counters(orders)
    assert (found["succeeded"], found["failed"], found["retried"]) == (50, 1, 1)
