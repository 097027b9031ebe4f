"""nats_consumer.testing: what a project's tests see of it."""

import asyncio
import threading
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import (
    Ack,
    ConsumerHandler,
    DeadLetter,
    Drop,
    JetstreamPullConsumer,
    Message,
    Outcome,
    Outgoing,
    PubAck,
    Retry,
    apublish,
    event,
    handle,
    publish,
    publish_many,
    publish_on_commit,
)
from nats_consumer.exceptions import (
    ConfigurationError,
    InvalidMessage,
    InvalidPayload,
    MessageAlreadySettled,
)
from nats_consumer.testing import FakeMessage, Published, adeliver, capture_published, deliver
from tests.project.orders.models import Receipt

CREATED = "orders.created"


def consumer(handle_message: Any, **attributes: Any) -> type[JetstreamPullConsumer]:
    """A consumer of orders.created with this method."""
    attributes = {"stream_name": "orders", "filter_subject": CREATED} | attributes
    attributes["handle_message"] = handle_message
    return type("OrderConsumer", (JetstreamPullConsumer,), attributes)


def answering(answer: object) -> type[JetstreamPullConsumer]:
    return consumer(lambda self, message: answer)


def test_what_is_published_is_captured_and_not_sent() -> None:
    with capture_published() as published:
        publish(CREATED, {"number": 7}, msg_id="order-7", headers={"Source": "shop"})
    [message] = published
    assert (message.subject, message.json()) == (CREATED, {"number": 7})
    assert message.headers == {"Source": "shop", "Nats-Msg-Id": "order-7"}
    assert message.msg_id == "order-7"


def test_every_way_to_publish_is_captured() -> None:
    with capture_published() as published:
        first = publish("one", b"1")
        second = asyncio.run(apublish("two", b"2"))
        publish_many([("three", b"3"), ("four", b"4")])
    assert [message.subject for message in published] == ["one", "two", "three", "four"]
    assert (first, second.seq) == (PubAck(stream="captured", seq=1, domain=None), 2)


def test_a_typed_handler_is_delivered_to_as_by_the_worker() -> None:
    @event("orders.{number}.paid")
    @dataclass
    class Paid:
        number: int
        total: Decimal

    got: list[Any] = []

    def handle_message(self: Any, paid: Paid, number: int, message: Message) -> None:
        got.append((paid, number, message.attempt))

    paid = Paid(7, Decimal("1.50"))
    orders = consumer(handle_message, filter_subject=Paid)
    assert deliver(orders, paid, attempt=2) == Ack()
    assert got == [(paid, 7, 2)]
    with pytest.raises(InvalidPayload, match="total"):
        deliver(orders, {"number": 7}, subject="orders.7.paid")
    with pytest.raises(ValueError, match="name the subject"):
        deliver(orders, {})


def test_headers_and_ids_of_many_messages_are_captured() -> None:
    with capture_published() as published:
        publish_many([Outgoing(CREATED, b"1", headers={"A": "b"}, msg_id=7), (CREATED, b"2")])
    assert published == [
        Published(CREATED, b"1", {"A": "b", "Nats-Msg-Id": "7"}),
        Published(CREATED, b"2"),
    ]


@pytest.mark.django_db(transaction=True)
def test_what_waits_for_a_commit_is_captured() -> None:
    with capture_published() as published:
        publish_on_commit(CREATED, b"")
    assert published == [Published(CREATED, b"")]


@pytest.mark.parametrize("subject", ["orders.*", "orders.>", "orders created", "orders..new", ""])
def test_a_subject_that_nothing_can_be_published_to_is_refused_in_a_capture_too(
    subject: str,
) -> None:
    with capture_published() as published:
        with pytest.raises(InvalidMessage):
            publish(subject, b"one")
        with pytest.raises(InvalidMessage):
            publish_many([(subject, b"one")])
    assert published == []


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"": "c"}, {"a:b": "c"}, {"A": "b\nc"}])
def test_a_header_that_cannot_be_sent_is_refused_in_a_capture_too(headers: dict[str, str]) -> None:
    with capture_published() as published, pytest.raises(InvalidMessage, match="one line"):
        publish(CREATED, b"one", headers=headers)
    assert published == []


def test_captures_may_be_nested() -> None:
    with capture_published() as outer:
        with capture_published() as inner:
            publish("inner", b"")
        publish("outer", b"")
    assert [message.subject for message in inner] == ["inner"]
    assert [message.subject for message in outer] == ["outer"]


def test_the_handler_gets_data_subject_headers_and_attempt() -> None:
    seen: list[Any] = []
    deliver(
        consumer(lambda self, message: seen.append(message)),
        {"number": 7},
        headers={"Source": "shop"},
        attempt=3,
    )
    [message] = seen
    assert message.data == b'{"number": 7}'
    assert (message.subject, message.headers, message.attempt) == (CREATED, {"Source": "shop"}, 3)
    assert (message.metadata.stream, message.metadata.num_delivered) == ("orders", 3)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (None, Ack()),
        ("a text", Ack()),
        (Retry(after=5), Retry(after=5)),
        (DeadLetter("no order"), DeadLetter("no order")),
        (Retry, Retry()),
    ],
)
def test_what_a_handler_returns_is_the_outcome(answer: object, outcome: Outcome) -> None:
    assert deliver(answering(answer)) == outcome


def test_an_outcome_that_is_raised_is_the_outcome() -> None:
    async def handle_message(self: Any, message: Any) -> None:
        raise Drop("a test order")

    assert deliver(consumer(handle_message)) == Drop("a test order")


def test_how_a_handler_settles_the_message_is_the_outcome() -> None:
    async def handle_message(self: Any, message: Any) -> None:
        await message.nak(30)

    assert deliver(consumer(handle_message)) == Retry(after=30)


def test_a_message_can_be_settled_once() -> None:
    message = FakeMessage(subject=CREATED)
    message.ack()
    with pytest.raises(MessageAlreadySettled):
        message.term("again")


def test_unfinished_work_that_a_handler_returns_is_an_error() -> None:
    with pytest.raises(TypeError, match="handle_message returned a generator"):
        deliver(answering(iter_once()))


def iter_once() -> Any:
    yield 1


def test_an_outcome_in_an_exception_group_is_the_outcome() -> None:
    async def handle_message(self: Any, message: Any) -> None:
        raise ExceptionGroup("several", [ValueError("no"), DeadLetter("why")])

    assert deliver(consumer(handle_message)) == DeadLetter("why")


def test_what_a_handler_raises_is_raised() -> None:
    def handle_message(self: Any, message: Any) -> None:
        raise KeyError("number")

    with pytest.raises(KeyError, match="number"):
        deliver(consumer(handle_message))


def test_a_handler_that_outlasts_its_handler_timeout_has_failed() -> None:
    async def hangs(self: Any, message: Any) -> None:
        await asyncio.Event().wait()

    async def fails_then(self: Any, message: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LookupError("cut off") from None

    def spins(self: Any, message: Any) -> None:
        began = time.monotonic()
        while time.monotonic() - began < 0.02:
            pass

    for handle_message in (hangs, fails_then, spins):
        with pytest.raises(TimeoutError, match=r"after 0\.01 s, the consumer's handler_timeout"):
            deliver(consumer(handle_message, handler_timeout=0.01))


def test_a_timeout_of_the_handlers_own_is_raised_as_it_is() -> None:
    async def fails(self: Any, message: Any) -> None:
        raise TimeoutError("the bank did not answer")

    with pytest.raises(TimeoutError, match="the bank"):
        deliver(consumer(fails, handler_timeout=60))


def test_an_async_test_that_does_not_await_is_told_to_use_adeliver() -> None:
    async def test() -> None:
        deliver(answering(None))

    with pytest.raises(RuntimeError, match=r"Use: await adeliver\("):
        asyncio.run(test())


def test_an_outcome_can_be_read_when_it_is_printed() -> None:
    assert [str(each) for each in (Ack(), Retry(5), Drop("old"))] == ["Ack()", "Retry(5)", "old"]


def test_blocking_code_runs_in_the_thread_of_the_test() -> None:
    threads: list[threading.Thread] = []

    class Handler(ConsumerHandler):
        @handle(CREATED)
        def created(self, message: Any) -> None:
            threads.append(threading.current_thread())

    async def with_await(self: Any, message: Any) -> None:
        await Handler([]).handle(message)

    deliver(consumer(with_await))
    deliver(consumer(lambda self, message: Handler([]).handle(message)))
    assert threads == [threading.current_thread()] * 2


def test_an_async_method_behind_a_plain_one_has_finished_when_it_returns() -> None:
    class Handler(ConsumerHandler):
        @handle(CREATED)
        async def created(self, message: Any) -> None:
            await asyncio.sleep(0)
            await message.term("done here")

    assert deliver(consumer(lambda self, m: Handler([]).handle(m))) == Drop("done here")


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.django_db
def test_a_handler_sees_the_transaction_of_the_test(blocking: bool) -> None:
    def write(self: Any, message: Any) -> None:
        assert Receipt.objects.filter(number=7).exists()
        Receipt.objects.create(number=8)

    async def awrite(self: Any, message: Any) -> None:
        assert await Receipt.objects.filter(number=7).aexists()
        await Receipt.objects.acreate(number=8)

    Receipt.objects.create(number=7)
    deliver(consumer(write if blocking else awrite))
    assert set(Receipt.objects.values_list("number", flat=True)) == {7, 8}


def test_an_async_test_awaits_the_outcome() -> None:
    async def test() -> Outcome:
        return await adeliver(answering(Retry(after=1)))

    assert asyncio.run(test()) == Retry(after=1)


def test_a_subject_that_the_consumer_never_gets_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gets orders\.created only, and never 'orders\.paid'"):
        deliver(answering(None), subject="orders.paid")
    with pytest.raises(ValueError, match=r"gets orders\.\* only, and never 'orders\.\*'"):
        deliver(consumer(print, filter_subject="orders.*"), subject="orders.*")


def test_a_subject_must_be_named_where_the_filter_leaves_it_open() -> None:
    with pytest.raises(ValueError, match=r"gets orders\.\*: name the subject of the message"):
        deliver(consumer(print, filter_subject="orders.*"))


def test_a_captured_message_has_the_connection_that_it_was_published_to(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"connections": {"analytics": {}}}
    with capture_published() as published:
        publish(CREATED, b"")
        asyncio.run(apublish(CREATED, b"", using="analytics"))
        publish_many([(CREATED, b"")], using="analytics")
        with pytest.raises(ConfigurationError, match="no connection 'reports'"):
            publish(CREATED, b"", using="reports")
    assert [each.using for each in published] == ["default", "analytics", "analytics"]
