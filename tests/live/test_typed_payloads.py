"""Typed payloads against a real server: what cannot be decoded, and what can."""

import logging
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from nats_consumer import (
    ConsumerHandler,
    DeadLetter,
    ErrorAckBehavior,
    Message,
    NatsConsumer,
    apublish,
    event,
    handle,
)
from nats_consumer.exceptions import InvalidPayload
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


class Item(msgspec.Struct):
    price: Decimal


class Paid(msgspec.Struct):
    id: int
    items: list[Item]


BAD = b'{"id": 7, "items": [{"price": "1"}, {"price": []}]}'


def paid_consumer(stage: Stage, how: str, **attributes: Any) -> Any:
    """A consumer of Paid that remembers its calls: an "async" or a plain "def" handler, or a
    "method" of a ConsumerHandler."""
    calls: list[Any] = []

    def note(self: Any, paid: Paid, message: Message) -> None:
        calls.append(("handled", paid.id, message.attempt))

    async def anote(self: Any, paid: Paid, message: Message) -> None:
        note(self, paid, message)

    class Events(ConsumerHandler):
        @handle(f"{stage.stream}.created")
        def created(self, paid: Paid, message: Message) -> None:
            note(self, paid, message)

    async def by_method(self: Any, message: Message) -> Any:
        return await self.events.handle(message)

    def handle_error(self: Any, message: Message, error: Exception, attempt: int) -> None:
        calls.append(("error", type(error), attempt))

    methods = {"async": anote, "def": note, "method": by_method}
    members = {
        "calls": calls,
        "events": Events(),
        "handle_message": methods[how],
        "handle_error": handle_error,
        **attributes,
    }
    return type("Orders", (stage.Pull,), members)


async def letter(stage: Stage) -> dict[str, str]:
    """The headers of the one dead letter."""
    dead_letters = f"{stage.stream}-dlq"
    assert stage.server.stream(dead_letters)["state"]["messages"] == 1
    found = await stage.jetstream.get_msg(dead_letters, 1)
    return found.headers or {}


@pytest.mark.parametrize("how", ["async", "def", "method"])
async def test_what_cannot_be_decoded_is_a_dead_letter_at_the_first_attempt(
    stage: Stage, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = paid_consumer(stage, how)
    async with running(consumer) as orders:
        await stage.publish(BAD, b'{"id": 8, "items": []}')
        await stage.everything_is_settled(consumer)
        await becomes_true(lambda: orders.total_success_count == 1)
        assert orders.total_error_count == 1
    assert sorted(consumer.calls) == [("error", InvalidPayload, 1), ("handled", 8, 1)]
    headers = await letter(stage)
    assert headers["Dlq-Reason"] == "cannot be decoded"
    assert headers["Dlq-Error"].startswith("nats_consumer.exceptions.InvalidPayload: ")
    assert "`$.items[1].price`" in headers["Dlq-Error"]
    assert headers["Dlq-Deliveries"] == "1"
    (record,) = [each for each in caplog.records if "InvalidPayload" in each.getMessage()]
    assert record.levelno == logging.ERROR
    assert record.exc_info is None
    assert "invalid_ack_behavior=DEAD_LETTER" in record.getMessage()


async def test_a_token_that_does_not_convert_is_a_dead_letter_too(stage: Stage) -> None:
    got: list[int] = []

    class Orders(stage.Push):  # type: ignore[name-defined]
        filter_subject = stage.stream + ".{number}.paid"

        async def handle_message(self, message: Message, number: int) -> None:
            got.append(number)

    async with running(Orders):
        await apublish(f"{stage.stream}.x.paid", b"")
        await apublish(Orders.filter_subject, b"", number=7)
        await stage.everything_is_settled(Orders)
    assert got == [7]
    headers = await letter(stage)
    assert headers["Dlq-Reason"] == "cannot be decoded"
    assert "{number}" in headers["Dlq-Error"]


@pytest.mark.parametrize("behavior", [ErrorAckBehavior.ACK, ErrorAckBehavior.TERM])
async def test_invalid_ack_behavior_decides_about_what_cannot_be_decoded(
    stage: Stage, behavior: ErrorAckBehavior
) -> None:
    consumer = paid_consumer(stage, "async", invalid_ack_behavior=behavior)
    async with running(consumer):
        await stage.publish(BAD)
        await stage.everything_is_settled(consumer)
    assert consumer.calls == [("error", InvalidPayload, 1)]
    names = {each.config.name for each in await stage.jetstream.streams_info()}
    assert f"{stage.stream}-dlq" not in names


async def test_a_message_that_cannot_be_decoded_may_come_again(stage: Stage) -> None:
    consumer = paid_consumer(
        stage, "async", invalid_ack_behavior=ErrorAckBehavior.NAK, max_retry_delay=0.05
    )
    async with running(consumer):
        await stage.publish(BAD)
        await becomes_true(lambda: len(consumer.calls) >= 2)
    assert consumer.calls[:2] == [("error", InvalidPayload, 1), ("error", InvalidPayload, 2)]


async def test_handle_error_decides_about_what_cannot_be_decoded_where_it_says_so(
    stage: Stage,
) -> None:
    async def handle_error(
        self: NatsConsumer, message: Message, error: Exception, attempt: int
    ) -> DeadLetter:
        return DeadLetter("an old publisher")

    consumer = paid_consumer(stage, "async", handle_error=handle_error)
    async with running(consumer):
        await stage.publish(BAD)
        await stage.everything_is_settled(consumer)
    assert (await letter(stage))["Dlq-Reason"] == "an old publisher"


async def test_a_broken_handle_error_leaves_what_cannot_be_decoded_a_dead_letter(
    stage: Stage,
) -> None:
    def handle_error(self: NatsConsumer, message: Message, error: Exception, attempt: int) -> None:
        raise RuntimeError

    consumer = paid_consumer(stage, "def", handle_error=handle_error)
    async with running(consumer):
        await stage.publish(BAD)
        await stage.everything_is_settled(consumer)
    assert (await letter(stage))["Dlq-Reason"] == "cannot be decoded"


async def test_a_validation_error_of_the_handler_itself_is_retried(stage: Stage) -> None:
    class Total(pydantic.BaseModel):
        total: int

    attempts: list[int] = []

    class Orders(stage.Pull):  # type: ignore[name-defined]
        max_retries = 2

        async def handle_message(self, message: Message, total: Total) -> None:
            attempts.append(message.attempt)
            if message.attempt < 3:
                Total.model_validate({"total": "none"})

    async with running(Orders):
        await stage.publish('{"total": 7}')
        await stage.everything_is_settled(Orders)
    assert attempts == [1, 2, 3]


async def test_an_event_goes_from_publish_to_handler_with_its_types(stage: Stage) -> None:
    @event(stage.stream + ".{number}.sent", encoding="msgpack")
    class Sent(msgspec.Struct):
        number: int
        total: Decimal

    @event(stage.stream + ".{number}.paid")
    @dataclass
    class Booked:
        number: int
        total: Decimal

    got: list[Any] = []

    class Events(ConsumerHandler):
        @handle(Sent)
        async def sent(self, sent: Sent, number: int) -> None:
            got.append((sent, number))

        @handle(Booked)
        def booked(self, booked: Booked, message: Message) -> None:
            got.append((booked, (message.headers or {})["Event-Type"]))

    class Orders(stage.Push):  # type: ignore[name-defined]
        filter_subject = None
        filter_subjects = (Sent, Booked)
        events = Events()

        async def handle_message(self, message: Message) -> Any:
            return await self.events.handle(message)

    sent, booked = Sent(7, Decimal("1.50")), Booked(8, Decimal("2.50"))
    async with running(Orders):
        await apublish(sent)
        await apublish(booked)
        await stage.everything_is_settled(Orders)
    assert got == [(sent, 7), (booked, "Booked; version=1")]
