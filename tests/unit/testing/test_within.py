"""The project's middleware around handlers that the test kit calls."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import (
    Ack,
    DeadLetter,
    Drop,
    ErrorAckBehavior,
    JetstreamPullConsumer,
    Outgoing,
    apublish,
    apublish_many,
    current_message,
    publish,
    publish_many,
    publish_on_commit,
)
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.testing import Nats, adeliver, capture_published, deliver
from tests import middleware

CREATED = "orders.created"
BOTH = pytest.mark.parametrize("how", ["def", "async"])
Uses = Callable[..., None]


@pytest.fixture
def uses(settings: Settings) -> Iterator[Uses]:
    """`uses("outer", "inner")` sets these of tests/middleware.py."""

    def use(*names: str, key: str = "middleware") -> None:
        paths = [name if "." in name else f"{middleware.HERE}.{name}" for name in names]
        settings.NATS_CONSUMER = {**getattr(settings, "NATS_CONSUMER", {}), key: paths}

    middleware.forget()
    yield use
    middleware.forget()


def orders(how: str, work: Callable[[Any], Any], **attributes: Any) -> Any:
    """A consumer whose handler does `work`: an exception that it returns is raised."""

    def handle_error(self: Any, message: Any, error: Exception, attempt: int) -> None:
        middleware.seen.append(f"handle_error within {middleware.is_inside}")

    members = {
        "stream_name": "orders",
        "filter_subject": CREATED,
        "handle_message": middleware.handler(how, work),
        "handle_error": handle_error,
    }
    return type("Orders", (JetstreamPullConsumer,), members | attributes)


@BOTH
def test_deliver_calls_the_handler_within_the_middleware(uses: Uses, how: str) -> None:
    uses("outer", "inner")
    assert deliver(orders(how, lambda message: None)) == Ack()
    assert middleware.seen == ["outer begins", "inner begins", "inner ends", "outer ends"]


@BOTH
def test_deliver_raises_what_the_handler_raised(uses: Uses, how: str) -> None:
    uses("outer")
    with pytest.raises(ValueError, match="no"):
        deliver(orders(how, lambda message: ValueError("no")))
    assert middleware.seen == ["outer begins", "outer sees ValueError"]


@pytest.mark.anyio
async def test_adeliver_calls_the_handler_within_the_middleware(uses: Uses) -> None:
    uses("outer")
    assert await adeliver(orders("async", lambda message: Drop("old"))) == Drop("old")
    assert middleware.seen == ["outer begins", "outer sees Drop"]


@BOTH
def test_deliver_gives_the_list_of_a_batch_to_the_middleware(uses: Uses, how: str) -> None:
    uses("acting")
    sizes: list[int] = []
    middleware.acts["before"] = lambda messages: sizes.append(len(messages))

    def handle(self: Any, messages: list[Any]) -> None: ...

    async def ahandle(self: Any, messages: list[Any]) -> None: ...

    members = {
        "stream_name": "orders",
        "filter_subject": CREATED,
        "handle_batch": ahandle if how == "async" else handle,
        "max_batch": 10,
    }
    assert deliver(type("Orders", (JetstreamPullConsumer,), members)) == Ack()
    assert sizes == [1]


@BOTH
def test_the_kit_asks_handle_error_within_the_middleware(uses: Uses, how: str) -> None:
    uses("outer", "inner")
    consumer = orders(
        how,
        lambda message: ValueError("no"),
        max_retries=1,
        handle_error_ack_behavior=ErrorAckBehavior.DEAD_LETTER,
    )
    nats = Nats([consumer])
    with nats.in_use():
        publish(CREATED, "1")
        nats.run()
    assert [type(each.error) for each in nats.attempts] == [ValueError, ValueError]
    assert isinstance(nats.attempts[-1].outcome, DeadLetter)
    assert "handle_error within ['outer', 'inner']" in middleware.seen
    assert middleware.seen.count("outer sees ValueError") == 2


@BOTH
def test_the_kit_gives_batches_to_the_middleware(uses: Uses, how: str) -> None:
    uses("outer", "acting")

    def refuse(messages: Any) -> None:
        if any(message.data == b"3" for message in messages):
            raise LookupError("no such tenant")

    middleware.acts["before"] = refuse

    def handle(self: Any, messages: list[Any]) -> None: ...

    async def ahandle(self: Any, messages: list[Any]) -> None: ...

    members = {
        "stream_name": "orders",
        "filter_subject": CREATED,
        "handle_batch": ahandle if how == "async" else handle,
        "max_batch": 4,
        "max_retries": 0,
    }
    nats = Nats([type("Orders", (JetstreamPullConsumer,), members)])
    with nats.in_use():
        publish_many([(CREATED, str(number)) for number in range(1, 5)])
        nats.run()
    assert [type(each.error) for each in nats.attempts] == [
        type(None),
        type(None),
        LookupError,
        type(None),
    ]


@BOTH
def test_the_kit_retries_what_a_middleware_refuses(uses: Uses, how: str) -> None:
    uses("outer", "acting")

    def refuse(message: Any) -> None:
        if message.attempt == 1:
            raise LookupError("no such tenant")

    middleware.acts["before"] = refuse
    nats = Nats([orders(how, lambda message: None)])
    with nats.in_use():
        publish(CREATED, "1")
        nats.run()
    assert [type(each.error) for each in nats.attempts] == [LookupError, type(None)]


@BOTH
def test_the_kit_keeps_to_the_handlers_timeout(uses: Uses, how: str) -> None:
    uses("outer")

    async def wait(self: Any, message: Any) -> None:
        if message.attempt == 1:
            await asyncio.Event().wait()

    def spin(self: Any, message: Any) -> None:
        if message.attempt == 1:
            sum(range(3_000_000))

    handler = wait if how == "async" else spin
    limit = 0.05 if how == "async" else 0.001
    consumer = orders(how, print, handle_message=handler, handler_timeout=limit, max_retries=0)
    nats = Nats([consumer])
    with nats.in_use():
        publish(CREATED, "1")
        nats.deliver_one(consumer)
    assert isinstance(nats.attempts[0].error, TimeoutError)
    assert "outer sees TimeoutError" in middleware.seen


@BOTH
def test_no_message_is_current_after_an_attempt(uses: Uses, how: str) -> None:
    uses("passing")
    found: list[bool] = []
    nats = Nats([orders(how, lambda message: found.append(current_message() is message))])
    with nats.in_use():
        publish(CREATED, "1")
        nats.run()
    assert found == [True]
    assert current_message() is None


@BOTH
def test_no_message_is_current_without_a_middleware_and_in_a_batch(uses: Uses, how: str) -> None:
    found: list[object] = []
    deliver(orders(how, lambda message: found.append(current_message())))
    uses("passing")

    def handle(self: Any, messages: list[Any]) -> None:
        found.append(current_message())

    async def ahandle(self: Any, messages: list[Any]) -> None:
        found.append(current_message())

    batches = orders(how, print, max_batch=2, handle_batch=ahandle if how == "async" else handle)
    del batches.handle_message
    deliver(batches)
    assert found == [None, None]


def test_a_middleware_that_cannot_be_imported_is_named(uses: Uses) -> None:
    uses("no.such.thing")
    with pytest.raises(ConfigurationError, match=r"no\.such\.thing cannot be imported"):
        deliver(orders("def", print))


@contextmanager
def marked(messages: list[Outgoing]) -> Iterator[None]:
    """A middleware around publishing."""
    middleware.seen.append(len(messages))
    for each in messages:
        assert isinstance(each.headers, dict)
        each.headers["Tenant"] = f"of {each.subject}"
    try:
        yield
    finally:
        middleware.seen.append("published")


def test_publishing_is_within_its_middleware(uses: Uses, db: None) -> None:
    uses(f"{__name__}.marked", key="publish_middleware")
    with capture_published() as published:
        publish(CREATED, "1")
        publish_many([(CREATED, "2"), Outgoing(CREATED, "3", headers={"A": "b"}, msg_id="3")])
    assert [(each.headers or {})["Tenant"] for each in published] == [f"of {CREATED}"] * 3
    assert (published[2].headers or {})["A"] == "b"
    assert published[2].msg_id == "3"
    assert middleware.seen == [1, "published", 2, "published"]


@pytest.mark.anyio
async def test_publishing_in_async_code_is_within_its_middleware(uses: Uses) -> None:
    uses(f"{__name__}.marked", key="publish_middleware")
    with capture_published() as published:
        await apublish(CREATED, "1")
        await apublish_many([(CREATED, "2"), (CREATED, "3")])
    assert [(each.headers or {})["Tenant"] for each in published] == [f"of {CREATED}"] * 3


@pytest.mark.django_db(transaction=True)
def test_a_message_for_a_commit_gets_the_middleware_of_the_call(uses: Uses) -> None:
    from django.db import transaction

    uses(f"{__name__}.marked", key="publish_middleware")
    with capture_published() as published, transaction.atomic():
        publish_on_commit(CREATED, "1")
        assert middleware.seen == [1, "published"]
        assert published == []
    assert [(each.headers or {})["Tenant"] for each in published] == [f"of {CREATED}"]
