"""Calls of the engine, and their answers."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import pytest
from django.db import transaction

from nats_consumer import Ack, DeadLetter, ErrorAckBehavior, JetstreamPullConsumer, Retry, lanes
from nats_consumer.outcomes import Outcome
from nats_consumer.run.batch_dispatch import dispatch_for
from nats_consumer.run.dispatch import Dispatch, LoopDispatch, ThreadDispatch
from tests.unit.support.doubles import FakeConsumption, FakeMessage
from tests.waiting import becomes_true

ERROR = LookupError("no such order")


class Looping(JetstreamPullConsumer):
    max_retry_delay = 30.0

    async def handle_message(self, message: Any) -> Any:
        return "looped"


class Threading(JetstreamPullConsumer):
    max_retry_delay = 30.0

    def handle_message(self, message: Any) -> Any:
        return threading.current_thread().name


BOTH = pytest.mark.parametrize("lane", [Looping, Threading])


def failed(consumer: JetstreamPullConsumer, message: FakeMessage) -> Outcome | None:
    """Return the answer of `failed`, called as the engine calls it in the consumer's lane."""
    dispatch = dispatch_for(consumer, 1)
    if isinstance(dispatch, LoopDispatch):
        return asyncio.run(dispatch.failed(message, ERROR))
    return in_thread(dispatch, lambda: dispatch.failed(message, ERROR))


def in_thread(dispatch: Dispatch, body: Callable[[], Any]) -> Any:
    """Run `body` where the engine runs a thread's deliveries: inside serve()."""

    answer: Future[Any] = Future()

    class Serving(FakeConsumption):
        def serve(self, rest: Any) -> None:
            answer.set_result(body())

    async def run() -> Any:
        dispatch.start(Serving())
        return await asyncio.wrap_future(answer)

    return asyncio.run(run())


def test_the_engine_gets_the_async_method_itself() -> None:
    consumer = Looping()
    assert dispatch_for(consumer, 1).handle == consumer.handle_message


def test_async_handlers_run_in_the_engines_tasks() -> None:
    consumption = FakeConsumption()
    dispatch_for(Looping(), 5).start(consumption)
    assert consumption.tasks_started


def test_blocking_code_of_async_handlers_runs_in_threads_of_the_consumer() -> None:
    class Calling(FakeConsumption):
        def start_tasks(self) -> None:
            self.task = asyncio.create_task(self.deliver())

        async def deliver(self) -> Any:
            return await lanes.call(lambda: threading.current_thread().name)

    async def run() -> Any:
        dispatch, consumption = dispatch_for(Looping(), 5), Calling()
        dispatch.start(consumption)
        name = await consumption.task
        dispatch.end()
        await becomes_true(lambda: not dispatch.stuck_threads())
        return name

    assert asyncio.run(run()) == "Looping-1"


def test_blocking_handlers_run_in_threads_named_after_the_consumer() -> None:
    dispatch = dispatch_for(Threading(), 1)
    assert isinstance(dispatch, ThreadDispatch)
    assert in_thread(dispatch, lambda: dispatch.handle(FakeMessage())) == "Threading-1"


@pytest.mark.parametrize("error", [MemoryError(), SystemExit(3)])
def test_a_thread_that_is_interrupted_goes_on_serving(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    served: Future[str] = Future()
    problems = [error]

    class Serving(FakeConsumption):
        def serve(self, rest: Any) -> None:
            if problems:
                raise problems.pop()
            served.set_result(threading.current_thread().name)

    async def run() -> None:
        dispatch_for(Threading(), 1).start(Serving())
        assert await asyncio.wrap_future(served) == "Threading-1"

    asyncio.run(run())
    assert "Threading-1: a thread was interrupted and continues." in caplog.text


@BOTH
@pytest.mark.parametrize("blocking", [True, False])
def test_handle_error_is_called_once_in_either_spelling(
    lane: type[JetstreamPullConsumer], blocking: bool
) -> None:
    calls: list[tuple[Any, ...]] = []

    def note(self: Any, message: Any, error: Exception, attempt: int) -> None:
        calls.append((message.subject, error, attempt))

    async def note_async(self: Any, message: Any, error: Exception, attempt: int) -> None:
        note(self, message, error, attempt)

    consumer = type("Noting", (lane,), {"handle_error": note if blocking else note_async})()
    assert failed(consumer, FakeMessage(attempt=4)) is None
    assert calls == [("orders.created", ERROR, 4)]


@BOTH
@pytest.mark.parametrize(
    ("behavior", "ending"),
    [
        ("ACK", "it is acknowledged"),
        ("NAK", "it is redelivered in 30 s"),
        ("TERM", "it is dropped"),
        ("DEAD_LETTER", "it is stored in orders-dlq"),
    ],
)
def test_without_handle_error_the_log_says_what_follows_and_the_engine_does_it(
    lane: type[JetstreamPullConsumer], behavior: str, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(lane):  # type: ignore[valid-type, misc]
        stream_name = "orders"
        handle_error_ack_behavior = ErrorAckBehavior[behavior]

    assert failed(Failing(), FakeMessage(attempt=4)) is None
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == (
        "Failing: attempt 4 of 4 at message 7 of orders.created failed with LookupError: no "
        f"such order; {ending} (handle_error_ack_behavior={behavior})."
    )
    assert record.exc_info
    assert record.exc_info[1] is ERROR


@BOTH
def test_a_message_that_always_fails_has_its_traceback_logged_once(
    lane: type[JetstreamPullConsumer], caplog: pytest.LogCaptureFixture
) -> None:
    for attempt in (4, 5, 6):
        failed(lane(), FakeMessage(attempt=attempt))
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, False]
    assert "attempt 6 after the limit of 4 at message 7" in caplog.text


@BOTH
def test_the_log_does_not_promise_what_handle_error_may_decide(
    lane: type[JetstreamPullConsumer], caplog: pytest.LogCaptureFixture
) -> None:
    consumer = type("Deciding", (lane,), {"handle_error": lambda *_: None})()
    failed(consumer, FakeMessage(attempt=4))
    assert "; unless handle_error decides otherwise, it is redelivered" in caplog.text


@BOTH
@pytest.mark.parametrize("raised", [True, False])
def test_handle_error_may_raise_or_return_an_outcome(
    lane: type[JetstreamPullConsumer], raised: bool
) -> None:
    def decide(self: Any, message: Any, error: Exception, attempt: int) -> Outcome:
        if raised:
            raise DeadLetter("enough")
        return DeadLetter("enough")

    consumer = type("Deciding", (lane,), {"handle_error": decide})()
    assert failed(consumer, FakeMessage()) == DeadLetter("enough")


@BOTH
@pytest.mark.parametrize(
    ("behavior", "outcome"),
    [
        (ErrorAckBehavior.ACK, Retry(after=30)),
        (ErrorAckBehavior.NAK, Retry(after=30)),
        (ErrorAckBehavior.TERM, Retry(after=30)),
        (ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR, Retry(after=30)),
        (ErrorAckBehavior.DEAD_LETTER, None),
    ],
)
def test_a_handle_error_that_fails_does_not_lose_the_message(
    lane: type[JetstreamPullConsumer],
    behavior: ErrorAckBehavior,
    outcome: Outcome | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(self: Any, message: Any, error: Exception, attempt: int) -> None:
        raise ZeroDivisionError

    attributes = {"handle_error": fail, "handle_error_ack_behavior": behavior}
    consumer = type("Failing", (lane,), attributes)()
    assert failed(consumer, FakeMessage()) == outcome
    assert "handle_error failed" in caplog.text


@BOTH
@pytest.mark.django_db(transaction=True)
def test_an_ack_that_handle_error_raises_in_a_transaction_does_not_acknowledge(
    lane: type[JetstreamPullConsumer], caplog: pytest.LogCaptureFixture
) -> None:
    def decide(self: Any, message: Any, error: Exception, attempt: int) -> None:
        with transaction.atomic():
            raise Ack

    assert failed(type("Deciding", (lane,), {"handle_error": decide})(), FakeMessage()) == Retry(30)
    assert "handle_error failed" in caplog.text
    assert "raise Ack() inside transaction.atomic() rolled back what the handler" in caplog.text


@BOTH
def test_an_outcome_in_a_group_that_handle_error_raises_counts(
    lane: type[JetstreamPullConsumer],
) -> None:
    def decide(self: Any, message: Any, error: Exception, attempt: int) -> None:
        raise ExceptionGroup("two tasks", [ValueError("no"), DeadLetter("enough")])

    consumer = type("Deciding", (lane,), {"handle_error": decide})()
    assert failed(consumer, FakeMessage()) == DeadLetter("enough")


@BOTH
def test_work_that_handle_error_returns_unfinished_does_not_acknowledge(
    lane: type[JetstreamPullConsumer], caplog: pytest.LogCaptureFixture
) -> None:
    def submit(self: Any, message: Any, error: Exception, attempt: int) -> Any:
        return Future()

    behavior = ErrorAckBehavior.ACK
    attributes = {"handle_error": submit, "handle_error_ack_behavior": behavior}
    assert failed(type("Submitting", (lane,), attributes)(), FakeMessage()) == Retry(after=30)
    assert "handle_error returned a future of a thread pool that is not waited for" in caplog.text


def test_a_task_that_handle_error_returns_unfinished_does_not_acknowledge(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def begin(self: Any, message: Any, error: Exception, attempt: int) -> Any:
        return asyncio.ensure_future(asyncio.sleep(0))

    attributes = {"handle_error": begin, "handle_error_ack_behavior": ErrorAckBehavior.ACK}
    assert failed(type("Beginning", (Looping,), attributes)(), FakeMessage()) == Retry(after=30)
    assert "handle_error returned a Task that is not awaited" in caplog.text


@BOTH
def test_what_a_stranger_wrote_into_a_subject_or_an_error_does_not_steer_the_terminal(
    lane: type[JetstreamPullConsumer], caplog: pytest.LogCaptureFixture
) -> None:
    dispatch = dispatch_for(lane(), 1)
    message = FakeMessage("orders.\x1b[2Jgone")
    caplog.set_level("DEBUG", "nats_consumer.handler")
    dispatch.log(message, ValueError("\x1b]0;gone"), "the next attempt follows")
    said, traceback_of = (record.getMessage() for record in caplog.records)
    assert r"of orders.\x1b[2Jgone failed with ValueError: \x1b]0;gone;" in said
    assert r"of orders.\x1b[2Jgone" in traceback_of
    assert "\x1b" not in said + traceback_of


def hangs(begun: threading.Event, go_on: threading.Event) -> None:
    begun.set()
    go_on.wait(timeout=30)


def test_threads_that_are_held_by_calls_of_ended_handlers_are_named_and_hold_up_the_consumer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Calling(FakeConsumption):
        def start_tasks(self) -> None:
            self.task = asyncio.create_task(lanes.call(hangs, begun, go_on))

    async def run() -> None:
        dispatch, consumption = dispatch_for(Looping(), 1), Calling()
        dispatch.start(consumption)
        await becomes_true(begun.is_set)
        consumption.task.cancel()
        await asyncio.wait({consumption.task})
        assert consumption.is_held_up
        go_on.set()
        await becomes_true(lambda: not consumption.is_held_up)
        dispatch.end()
        await becomes_true(lambda: not dispatch.stuck_threads())

    caplog.set_level("INFO", "nats_consumer")
    asyncio.run(run())
    held, free = caplog.records
    assert held.levelname == "ERROR"
    assert held.getMessage().startswith("Looping: all its threads (1) are held by blocking calls")
    assert "in hangs > " in held.getMessage()
    assert "Looping: a thread is free again" in free.getMessage()


def test_a_handle_error_that_swallows_its_timeout_has_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def hang(self: Any, message: Any, error: Exception, attempt: int) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    attributes = {"handle_error": hang, "handler_timeout": 0.01}
    assert failed(type("Hanging", (Looping,), attributes)(), FakeMessage()) == Retry(after=30)
    assert "handle_error failed" in caplog.text


@BOTH
def test_a_handle_error_that_settles_nothing_although_it_should_is_reported(
    lane: type[JetstreamPullConsumer], caplog: pytest.LogCaptureFixture
) -> None:
    behavior = ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
    consumer = type("Idle", (lane,), {"handle_error_ack_behavior": behavior})()
    assert failed(consumer, FakeMessage()) == Retry(after=30)
    assert "leaves settling to handle_error, which settled nothing" in caplog.text


@BOTH
def test_what_handle_error_settled_is_settled(lane: type[JetstreamPullConsumer]) -> None:
    async def settle(self: Any, message: Any, error: Exception, attempt: int) -> None:
        await message.term()

    behavior = ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
    attributes = {"handle_error": settle, "handle_error_ack_behavior": behavior}
    message = FakeMessage()
    assert failed(type("Settling", (lane,), attributes)(), message) is None
    assert message.settled == [("term", None)]
