"""NATS_CONSUMER["middleware"] around attempts, as a worker makes them."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import (
    Ack,
    ErrorAckBehavior,
    Outgoing,
    Retry,
    _native,
    apublish,
    apublish_many,
    current_message,
    publish,
    publish_many,
)
from nats_consumer.connect.log import LogPump
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.run.batch_dispatch import dispatch_for
from tests import middleware
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("how", ["def", "async"])
Uses = Callable[..., None]


@pytest.fixture(autouse=True)
def engine_logs() -> Iterator[None]:
    """Carry the engine's log to Python, as under the command."""
    with LogPump(_native.take_logs):
        yield


@pytest.fixture
def uses(settings: Settings) -> Iterator[Uses]:
    """`uses("outer", "inner")` sets these of the support module."""

    def use(*names: str) -> None:
        paths = [f"{middleware.HERE}.{name}" for name in names]
        settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "middleware": paths}

    middleware.forget()
    yield use
    middleware.forget()


def consumer(stage: Stage, how: str, work: Callable[[Any], Any], **attributes: Any) -> Any:
    """A consumer called Orders whose handler does `work`: an exception that it returns is
    raised."""

    def handle_error(self: Any, message: Any, error: Exception, attempt: int) -> None:
        middleware.seen.append(f"handle_error within {middleware.is_inside}")

    handler = middleware.handler(how, work)
    members = {"handle_message": handler, "handle_error": handle_error, "concurrency": 1}
    return type("Orders", (stage.Pull,), members | attributes)


@pytest.fixture
def reported() -> Iterator[list[tuple[str, list[str]]]]:
    """Each report of a failed attempt, with the middleware that it was written in."""
    found: list[tuple[str, list[str]]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append((record.getMessage(), [*middleware.is_inside]))

    handler, logger = Handler(logging.WARNING), logging.getLogger("nats_consumer.handler")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


@BOTH
async def test_the_first_middleware_is_the_outermost(stage: Stage, uses: Uses, how: str) -> None:
    uses("outer", "inner")
    orders = consumer(stage, how, lambda message: middleware.seen.append("handled"))
    async with running(orders):
        await stage.publish("1")
        await stage.everything_is_settled(orders)
    assert middleware.seen == [
        "outer begins",
        "inner begins",
        "handled",
        "inner ends",
        "outer ends",
    ]


@BOTH
async def test_reports_and_handle_error_are_within_the_middleware(
    stage: Stage, uses: Uses, how: str, reported: list[tuple[str, list[str]]]
) -> None:
    uses("outer", "inner")
    orders = consumer(
        stage,
        how,
        lambda message: ValueError("no"),
        max_retries=1,
        handle_error_ack_behavior=ErrorAckBehavior.ACK,
    )
    async with running(orders) as running_orders:
        await stage.publish("1")
        await stage.everything_is_settled(orders)
        counters = running_orders._consumption.counters()
    assert (counters["failed"], counters["retried"], counters["exhausted"]) == (2, 1, 1)
    assert [where for _, where in reported] == [["outer", "inner"]] * 2
    assert "attempt 1 of 2" in reported[0][0]
    assert "attempt 2 of 2" in reported[1][0]
    assert "handle_error within ['outer', 'inner']" in middleware.seen
    assert middleware.seen.count("outer sees ValueError") == 2


@BOTH
async def test_a_middleware_that_raises_fails_the_attempt_within_the_outer_ones(
    stage: Stage, uses: Uses, how: str, reported: list[tuple[str, list[str]]]
) -> None:
    uses("outer", "acting")

    def refuse(message: Any) -> None:
        if message.attempt == 1:
            raise LookupError("no such tenant")

    middleware.acts["before"] = refuse
    attempts: list[int] = []
    orders = consumer(stage, how, lambda message: attempts.append(message.attempt))
    async with running(orders):
        await stage.publish("1")
        await stage.everything_is_settled(orders)
    assert attempts == [2]
    assert [where for _, where in reported] == [["outer"]]
    assert "LookupError: no such tenant" in reported[0][0]


@BOTH
async def test_a_middleware_that_raises_after_the_handler_fails_the_attempt(
    stage: Stage, uses: Uses, how: str
) -> None:
    uses("acting")

    def refuse(message: Any) -> None:
        if message.attempt == 1:
            raise LookupError("too late")

    middleware.acts["after"] = refuse
    attempts: list[int] = []
    orders = consumer(stage, how, lambda message: attempts.append(message.attempt))
    async with running(orders):
        await stage.publish("1")
        await stage.everything_is_settled(orders)
    assert attempts == [1, 2]


@BOTH
async def test_a_middleware_can_answer_instead_of_the_handler(
    stage: Stage, uses: Uses, how: str
) -> None:
    uses("acting")
    attempts: list[int] = []
    middleware.acts["instead"] = lambda message: Retry(0) if message.attempt == 1 else None
    orders = consumer(stage, how, lambda message: attempts.append(message.attempt))
    async with running(orders) as running_orders:
        await stage.publish("1")
        await stage.everything_is_settled(orders)
        assert running_orders._consumption.counters()["failed"] == 0
    assert attempts == [2]


@BOTH
async def test_an_error_that_a_middleware_hides_was_judged_before(
    stage: Stage, uses: Uses, how: str
) -> None:
    uses("swallowing")
    attempts: list[int] = []

    def fail_once(message: Any) -> Any:
        attempts.append(message.attempt)
        return ValueError("no") if message.attempt == 1 else None

    orders = consumer(stage, how, fail_once)
    async with running(orders) as running_orders:
        await stage.publish("1")
        await stage.everything_is_settled(orders)
        counters = running_orders._consumption.counters()
    assert attempts == [1, 2]
    assert (counters["failed"], counters["succeeded"]) == (1, 1)


@BOTH
async def test_an_error_after_the_judgement_is_only_logged(
    stage: Stage, uses: Uses, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    uses("failing_at_errors")
    orders = consumer(
        stage, how, lambda message: ValueError("no") if message.attempt == 1 else None
    )
    async with running(orders) as running_orders:
        await stage.publish("1")
        await stage.everything_is_settled(orders)
        assert running_orders._consumption.counters()["failed"] == 1
    assert "failing_at_errors failed after the attempt was judged" in caplog.text


@BOTH
async def test_outcomes_that_a_handler_raises_pass_through(
    stage: Stage, uses: Uses, how: str, reported: list[tuple[str, list[str]]]
) -> None:
    uses("outer")
    orders = consumer(stage, how, lambda message: Retry(0) if message.attempt == 1 else Ack())
    async with running(orders):
        await stage.publish("1")
        await stage.everything_is_settled(orders)
    assert reported == []
    assert middleware.seen == ["outer begins", "outer sees Retry", "outer begins", "outer sees Ack"]


@BOTH
async def test_current_message_is_that_of_the_attempt(stage: Stage, uses: Uses, how: str) -> None:
    uses("passing")
    found: list[bool] = []
    orders = consumer(stage, how, lambda message: found.append(current_message() is message))
    async with running(orders):
        await stage.publish("1", "2")
        await stage.everything_is_settled(orders)
    assert found == [True, True]
    assert current_message() is None


async def test_a_timeout_is_reported_within_the_middleware(
    stage: Stage, uses: Uses, reported: list[tuple[str, list[str]]]
) -> None:
    uses("outer")

    class Orders(stage.Pull):
        handler_timeout = 0.1

        async def handle_message(self, message: Any) -> None:
            if message.attempt == 1:
                await asyncio.Event().wait()

    async with running(Orders):
        await stage.publish("1")
        await stage.everything_is_settled(Orders)
    ((text, where),) = reported
    assert "TimeoutError: timed out after 0.1 s" in text
    assert where == ["outer"]
    assert "outer sees TimeoutError" in middleware.seen


async def test_handle_error_has_its_own_time(stage: Stage, uses: Uses) -> None:
    uses("outer")
    asked = []

    class Orders(stage.Pull):
        handler_timeout = 0.3
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        def handle_message(self, message: Any) -> None:
            threading.Event().wait(0.2)
            raise ValueError("no")

        def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            threading.Event().wait(0.3)
            asked.append(type(error).__name__)

    async with running(Orders):
        await stage.publish("1")
        await stage.everything_is_settled(Orders)
    assert asked == ["ValueError"], "the time of the handler is over, and not that of handle_error"


async def test_a_late_def_handler_is_judged_once(
    stage: Stage, uses: Uses, caplog: pytest.LogCaptureFixture
) -> None:
    uses("outer")
    release = threading.Event()

    class Orders(stage.Pull):
        handler_timeout = 0.2
        concurrency = 2

        def handle_message(self, message: Any) -> None:
            if message.attempt == 1:
                release.wait(20)
                raise ValueError("late")

    async with running(Orders) as orders:
        await stage.publish("1")
        await stage.everything_is_settled(Orders)
        release.set()
        await becomes_true(lambda: "beyond handler_timeout" in caplog.text)
        counters = orders._consumption.counters()
        await becomes_true(lambda: orders._consumption.counters()["in_flight"] == 0)
    assert (counters["failed"], counters["succeeded"]) == (1, 1)
    (ignored,) = [each for each in caplog.records if "beyond handler_timeout" in each.getMessage()]
    assert "raised ValueError: late" in ignored.getMessage()
    assert ignored.__dict__["consumer"] == "Orders", "a record of the engine has its fields"


async def test_what_is_cancelled_at_the_end_of_a_drain_is_handed_back(
    stage: Stage, uses: Uses
) -> None:
    uses("outer")
    began = asyncio.Event()

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            began.set()
            await asyncio.Event().wait()

    async with running(Orders, drain=0.1) as orders:
        await stage.publish("1")
        await asyncio.wait_for(began.wait(), 20)
        consumption: Any = orders._consumption
    assert consumption.counters()["handed_back"] == 1
    assert consumption.counters()["failed"] == 0
    assert middleware.seen[-1] == "outer sees CancelledError"


async def test_a_class_is_made_once_for_a_consumer(stage: Stage, uses: Uses) -> None:
    uses("Counting")
    middleware.Counting.made = 0
    orders = consumer(stage, "def", lambda message: None)
    async with running(orders):
        await stage.publish("1", "2", "3")
        await stage.everything_is_settled(orders)
    assert middleware.Counting.made == 1
    assert middleware.Counting.threads == {"Orders-1"}


@BOTH
async def test_a_batch_is_within_the_middleware_as_a_whole(
    stage: Stage, uses: Uses, how: str, reported: list[tuple[str, list[str]]]
) -> None:
    uses("outer")
    orders = batch(stage, how, guilty=b"2")
    async with running(orders) as running_orders:
        await stage.publish("1", "2", "3", "4")
        await stage.everything_is_settled(orders)
        counters = running_orders._consumption.counters()
    assert (counters["succeeded"], counters["exhausted"]) == (3, 1)
    assert all(where == ["outer"] for _, where in reported)
    assert any("attempt 1 of 1" in text for text, _ in reported)
    assert "outer sees ValueError" in middleware.seen


@BOTH
async def test_a_middleware_that_fails_at_one_message_fails_that_one_of_a_batch(
    stage: Stage, uses: Uses, how: str
) -> None:
    uses("acting")

    def refuse(messages: Any) -> None:
        if any(message.data == b"3" for message in messages):
            raise LookupError("no such tenant")

    middleware.acts["before"] = refuse
    orders = batch(stage, how, guilty=b"none")
    async with running(orders) as running_orders:
        await stage.publish("1", "2", "3", "4")
        await stage.everything_is_settled(orders)
        counters = running_orders._consumption.counters()
    assert (counters["succeeded"], counters["exhausted"]) == (3, 1)


@BOTH
async def test_a_middleware_can_answer_for_a_batch(stage: Stage, uses: Uses, how: str) -> None:
    uses("acting")
    middleware.acts["instead"] = lambda messages: (
        Retry(0) if any(message.attempt == 1 for message in messages) else None
    )
    orders = batch(stage, how, guilty=b"none")
    async with running(orders) as running_orders:
        await stage.publish("1", "2")
        await stage.everything_is_settled(orders)
        counters = running_orders._consumption.counters()
    assert counters["failed"] == 0
    assert counters["succeeded"] == 2
    assert counters["retried"] >= 2


def batch(stage: Stage, how: str, guilty: bytes) -> Any:
    """A consumer called Orders of batches, which fails at one message."""

    def handle(self: Any, messages: list[Any]) -> None:
        if any(message.data == guilty for message in messages):
            raise ValueError("no")

    async def ahandle(self: Any, messages: list[Any]) -> None:
        handle(self, messages)

    members = {
        "handle_batch": ahandle if how == "async" else handle,
        "max_batch": 4,
        "max_batch_wait": 0.2,
        "max_retries": 0,
        "handle_error_ack_behavior": ErrorAckBehavior.ACK,
    }
    return type("Orders", (stage.Pull,), members)


async def test_without_middleware_the_handler_is_the_bound_method(stage: Stage) -> None:
    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None: ...

    class Blocking(stage.Pull):
        def handle_message(self, message: Any) -> None: ...

    orders, blocking = Orders(), Blocking()
    assert dispatch_for(orders, 1).handle == orders.handle_message
    in_threads: Any = dispatch_for(blocking, 1)
    assert in_threads._handle_message == blocking.handle_message


@pytest.mark.parametrize(("name", "how"), [("blocking", "async"), ("loops", "def")])
async def test_a_middleware_of_the_other_kind_is_refused(
    stage: Stage, uses: Uses, name: str, how: str
) -> None:
    uses(name)
    with pytest.raises(ConfigurationError, match=f"middleware.{name} does not work for"):
        dispatch_for(consumer(stage, how, print)(), 1)


async def test_a_middleware_that_is_not_used_is_left_out(stage: Stage, uses: Uses) -> None:
    uses("unused", "outer")
    orders = consumer(stage, "def", lambda message: None)
    async with running(orders):
        await stage.publish("1")
        await stage.everything_is_settled(orders)
    assert middleware.seen == ["outer begins", "outer ends"]


@contextmanager
def marked(messages: list[Outgoing]) -> Iterator[None]:
    """A middleware around publishing."""
    for each in messages:
        assert isinstance(each.headers, dict)
        each.headers["Tenant"] = "acme"
    yield


async def test_headers_of_a_middleware_are_published_with_each_message(
    stage: Stage, settings: Settings
) -> None:
    settings.NATS_CONSUMER = {
        **settings.NATS_CONSUMER,
        "publish_middleware": [f"{__name__}.marked"],
    }
    found: list[tuple[bytes, str]] = []
    orders = consumer(
        stage, "def", lambda message: found.append((message.data, message.headers["Tenant"]))
    )
    subject = f"{stage.stream}.created"
    async with running(orders):
        await apublish(subject, b"1")
        await apublish_many([(subject, b"2"), Outgoing(subject, b"3", headers={"A": "b"})])
        await asyncio.to_thread(publish, subject, b"4")
        await asyncio.to_thread(publish_many, [(subject, b"5")])
        await stage.everything_is_settled(orders)
    assert found == [(str(number).encode(), "acme") for number in range(1, 6)]
