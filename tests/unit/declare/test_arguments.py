"""A handler's signature decides what it is called with."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import wraps
from typing import Any, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pydantic
import pytest
from django.db import transaction

from nats_consumer import (
    ConsumerHandler,
    JetstreamPullConsumer,
    Message,
    event,
    handle,
)
from nats_consumer.checks import check_consumers
from nats_consumer.declare.arguments import message_call
from nats_consumer.exceptions import ConfigurationError, InvalidPayload
from nats_consumer.testing import FakeMessage
from tests.unit.support.libraries import hidden

_Payload = TypeVar("_Payload")
SOME_UUID = UUID("12345678-1234-5678-1234-567812345678")


class Paid(msgspec.Struct):
    total: Decimal


class PaidDict(TypedDict):
    total: Decimal


@dataclass
class PaidData:
    total: Decimal


class PaidModel(pydantic.BaseModel):
    total: Decimal


class PaidBytes:
    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def __nats_decode__(cls, payload: bytes) -> "PaidBytes":
        return cls(payload.decode("ascii"))

    def __nats_encode__(self) -> bytes:
        return self.text.encode()


class Kind(Enum):
    GIFT = "gift"
    LARGE = 3


def consumer(method: Any, subject: Any = "orders.{id}.paid", **attributes: Any) -> Any:
    members = {
        "stream_name": "orders",
        "filter_subject": subject,
        "handle_message": method,
        **attributes,
    }
    return type("Orders", (JetstreamPullConsumer,), members)


def answer(method: Any, data: Any = b'{"total": "7.50"}', subject: str = "orders.7.paid") -> Any:
    return message_call(consumer(method)())(FakeMessage(data, subject=subject))


def problems(method: Any, subject: Any = "orders.{id}.paid") -> list[tuple[str | None, str]]:
    consumer(method, subject)
    return [(each.id, str(each.msg)) for each in check_consumers()]


def test_a_handler_that_takes_the_message_is_called_without_anything_between() -> None:
    class Orders(JetstreamPullConsumer):
        stream_name = "orders"
        filter_subject = "orders.{id}.paid"

        async def handle_message(self, m: Any) -> None:
            return

    orders = Orders()
    assert message_call(orders) == orders.handle_message


def old_ways() -> list[Any]:
    def by_any_name(self: Any, whatever): ...  # type: ignore[no-untyped-def]
    def annotated_by_nats_py(self: Any, m: "Msg"): ...  # type: ignore[no-untyped-def,name-defined] # noqa: F821
    def as_any(self: Any, m: Any) -> None: ...
    def with_defaults(self: Any, message: Any, retries: int = 3) -> None: ...
    def with_anything(self: Any, *args: Any, **kwargs: Any) -> None: ...
    def message_of_a_class(self: Any, message: PaidData) -> None: ...
    def unknown_message(self: Any, message: "Nothing") -> None: ...  # type: ignore[name-defined] # noqa: F821
    def described(self: Any, message: "the message, as it came") -> None: ...  # type: ignore[valid-type] # noqa: F722

    return [
        by_any_name,
        annotated_by_nats_py,
        as_any,
        with_defaults,
        with_anything,
        message_of_a_class,
        unknown_message,
        described,
    ]


@pytest.mark.parametrize("method", old_ways())
def test_a_handler_of_before_gets_the_message_whatever_it_calls_it(method: Any) -> None:
    assert problems(method, "orders.paid") == []
    orders = consumer(method, "orders.paid")()
    assert message_call(orders) == orders.handle_message


def test_payload_message_and_tokens_come_in_the_order_of_the_signature() -> None:
    def handle_message(self: Any, id: int, paid: Paid, message: Message) -> Any:  # noqa: A002
        return id, paid.total, message.subject

    assert answer(handle_message) == (7, Decimal("7.50"), "orders.7.paid")


def test_arguments_may_be_given_by_their_names_only() -> None:
    def handle_message(self: Any, *, id: int, paid: Paid, message: Message) -> Any:  # noqa: A002
        return id, paid.total, message.subject

    assert answer(handle_message) == (7, Decimal("7.50"), "orders.7.paid")


def test_a_parameter_with_a_default_does_not_get_the_token_behind_it() -> None:
    def handle_message(self, retries=3, id=0):  # type: ignore[no-untyped-def] # noqa: A002
        return retries, id

    assert answer(handle_message) == (3, "7")


def test_a_lone_parameter_beside_tokens_is_the_message() -> None:
    def handle_message(self, m, id):  # type: ignore[no-untyped-def] # noqa: A002
        return m.subject, id

    assert answer(handle_message) == ("orders.7.paid", "7")


class Chat:
    """A project's own classes of these names are payloads."""

    class Message(msgspec.Struct):
        text: str


def test_a_payload_class_may_be_called_message() -> None:
    def handle_message(self: Any, chat: Chat.Message) -> str:
        return chat.text

    assert answer(handle_message, b'{"text": "hello"}') == "hello"


def by_string(self: Any, paid: "Paid", msg: "Message") -> Any:
    return paid.total, msg.attempt


def test_an_annotation_may_be_a_text() -> None:
    assert answer(by_string) == (Decimal("7.50"), 1)


def test_a_decorator_that_takes_anything_shows_the_method_inside() -> None:
    @transaction.atomic
    def handle_message(self: Any, paid: Paid) -> None: ...

    @wraps(handle_message)
    def own(self: Any, message: Any) -> str:
        return str(message.subject)

    assert problems(handle_message) == []
    assert answer(own) == "orders.7.paid"


def test_an_async_handler_stays_one_and_a_bad_payload_is_raised_before_it_begins() -> None:
    async def handle_message(self: Any, paid: Paid) -> None: ...

    with pytest.raises(InvalidPayload):
        answer(handle_message, b"{}")


@pytest.mark.parametrize(
    ("kind", "token", "value"),
    [
        (str, "7", "7"),
        (int, "-7", -7),
        (UUID, str(SOME_UUID), SOME_UUID),
        (date, "2026-11-29", date(2026, 11, 29)),
        (Kind, "gift", Kind.GIFT),
        (Kind, "3", Kind.LARGE),
    ],
)
def test_a_token_becomes_what_its_annotation_says(kind: Any, token: str, value: Any) -> None:
    def handle_message(self: Any, message: Any, id: kind) -> Any:  # noqa: A002
        return id

    assert answer(handle_message, subject=f"orders.{token}.paid") == value


@pytest.mark.parametrize(
    ("kind", "token"),
    [(int, "x"), (int, "7_0"), (int, "\u0667"), (UUID, "7"), (date, "29-11-2026"), (Kind, "no")],
)
def test_a_token_that_does_not_convert_is_an_invalid_payload(kind: Any, token: str) -> None:
    def handle_message(self: Any, message: Any, id: kind) -> Any:  # noqa: A002
        return id

    with pytest.raises(InvalidPayload, match=r"\{id\} of the subject 'orders\."):
        answer(handle_message, subject=f"orders.{token}.paid")


def unfit() -> list[tuple[Any, str, str]]:
    def two_payloads(self: Any, paid: Paid, other: dict) -> None: ...  # type: ignore[type-arg]
    def unknown(self: Any, message, paid: Paid, session): ...  # type: ignore[no-untyped-def]
    def no_such_name(self: Any, message: Any, number: int) -> None: ...
    def a_float(self: Any, message: Any, id: float) -> None: ...  # noqa: A002
    def unimported(self: Any, paid: "Nothing") -> None: ...  # type: ignore[name-defined] # noqa: F821
    def called_message(self: Any, message: Paid) -> None: ...
    def only_by_keyword(self: Any, paid: Paid, *, other: Any) -> None: ...
    def with_a_default(self: Any, paid: Paid | None = None) -> None: ...
    def generic_list(self: Any, paid: list[_Payload]) -> None: ...  # type: ignore[valid-type]
    def generic(self: Any, paid: _Payload) -> None: ...  # type: ignore[valid-type]

    return [
        (
            two_payloads,
            "nats_consumer.E005",
            "both paid and other would get the payload. Keep one.",
        ),
        (unknown, "nats_consumer.E005", "the parameter 'session' gets no value"),
        (no_such_name, "nats_consumer.E005", "no subject has {number}. Write it in filter_subject"),
        (
            a_float,
            "nats_consumer.E005",
            "Annotate it as str, int, UUID, date or an Enum, and not float.",
        ),
        (unimported, "nats_consumer.E005", "is not known at run time"),
        (called_message, "nats_consumer.E005", "'message' has the message's name"),
        (only_by_keyword, "nats_consumer.E005", "the parameter 'other' gets no value"),
        (with_a_default, "nats_consumer.E005", "'paid' has a default"),
        (generic_list, "nats_consumer.E005", "the type variable ~_Payload does not say"),
        (generic, "nats_consumer.E005", "the type variable ~_Payload does not say"),
    ]


@pytest.mark.parametrize(("method", "check", "text"), unfit())
def test_a_signature_that_cannot_be_filled_is_found_before_anything_runs(
    method: Any, check: str, text: str
) -> None:
    ((found, message),) = problems(method)
    assert (found, text in message) == (check, True), message
    with pytest.raises(ConfigurationError):
        message_call(consumer(method)())


def test_a_name_that_not_every_subject_has_is_an_error() -> None:
    def handle_message(self: Any, message: Any, id: int) -> None: ...  # noqa: A002

    consumer(handle_message, None, filter_subjects=["orders.{id}.paid", "users.created"])
    assert [each.id for each in check_consumers()] == ["nats_consumer.E005"]


def test_several_filters_have_a_name_at_different_places() -> None:
    def handle_message(self: Any, message: Any, id: int) -> int:  # noqa: A002
        return id

    orders = consumer(handle_message, None, filter_subjects=["orders.{id}.paid", "eu.x.{id}.>"])
    call = message_call(orders())
    subjects = ["orders.7.paid", "eu.x.8.paid.twice"]
    assert [call(FakeMessage(subject=each)) for each in subjects] == [7, 8]
    with pytest.raises(InvalidPayload, match="another form"):
        call(FakeMessage(subject="eu.orders"))


@pytest.fixture
def no_libraries() -> Iterator[None]:
    with hidden("msgspec", "pydantic"):
        yield


def needing_a_library(name: str, *kinds: Any) -> list[Any]:
    def method(kind: Any) -> Any:
        def handle_message(self: Any, paid: kind) -> Any:
            return paid

        return handle_message

    return [pytest.param(method(kind), id=f"{name} {kind}") for kind in kinds]


@pytest.mark.parametrize(
    "method", needing_a_library("no", PaidData, PaidDict, list[PaidData], int | None)
)
def test_an_annotation_that_nothing_installed_can_decode_is_found_by_the_check(
    method: Any, no_libraries: None
) -> None:
    ((found, message),) = problems(method)
    assert found == "nats_consumer.E006"
    assert "pip install 'django-nats-consumer[msgspec]'" in message


@pytest.mark.parametrize(
    "method",
    needing_a_library("none", dict, dict[str, Any], list, list[Any], bytes, PaidBytes),
)
def test_some_annotations_need_no_library(method: Any, no_libraries: None) -> None:
    assert problems(method) == []


@pytest.mark.anyio
async def test_methods_of_a_handler_class_declare_their_arguments_too() -> None:
    got: list[Any] = []

    class Orders(ConsumerHandler):
        def __init__(self) -> None:
            super().__init__(["orders.created"])

        async def handle_created(self, created: dict) -> None:  # type: ignore[type-arg]
            got.append(created)

        @handle("orders.{id}.paid", "orders.eu.{id}.paid")
        def paid(self, message: Message, paid: Paid, id: int) -> None:  # noqa: A002
            got.append((message.attempt, paid.total, id))

        @handle("orders.>")
        async def rest(self, message: Message) -> None:
            got.append(message.subject)

    handler = Orders()
    await handler.handle(FakeMessage({"number": 7}, subject="orders.created"))
    await handler.handle(FakeMessage({"total": "7.50"}, subject="orders.8.paid"))
    await handler.handle(FakeMessage({"total": "1"}, subject="orders.eu.9.paid"))
    await handler.handle(FakeMessage(subject="orders.sent"))
    assert got == [{"number": 7}, (1, Decimal("7.50"), 8), (1, Decimal(1), 9), "orders.sent"]
    with pytest.raises(InvalidPayload):
        await handler.handle(FakeMessage(b"[]", subject="orders.created"))


def test_a_method_of_a_handler_class_that_cannot_be_called_is_an_error() -> None:
    class Orders(ConsumerHandler):
        @handle("orders.{id}.paid")
        def paid(self, message: Message, number: int) -> None: ...

    told = r"Orders\.paid: 'number' would get a token, and no subject has \{number\}"
    with pytest.raises(ConfigurationError, match=told):
        Orders()


def test_a_method_of_a_handler_class_that_cannot_take_a_message_is_an_error() -> None:
    class Orders(ConsumerHandler):
        @handle("orders.*")
        def paid(self, order, customer): ...  # type: ignore[no-untyped-def]

    told = r"Orders\.paid must take \(self, message\), not \(self, order, customer\)"
    with pytest.raises(ConfigurationError, match=told):
        Orders()


@event("orders.{id}.sent")
class Sent(msgspec.Struct):
    id: int


def test_an_event_class_stands_for_its_subject_in_filters_and_at_methods() -> None:
    def handle_message(self: Any, sent: Sent, id: str) -> Any:  # noqa: A002
        return sent.id, id

    orders = consumer(handle_message, Sent)()
    assert orders.get_filter_subject() == "orders.*.sent"
    message = FakeMessage(b'{"id": 7}', subject="orders.7.sent")
    assert message_call(orders)(message) == (7, "7")

    class Orders(ConsumerHandler):
        @handle(Sent)
        def sent(self, sent: Sent) -> None: ...

    assert Orders().get_subjects() == ["orders.*.sent"]


def test_a_class_that_is_no_event_is_refused_as_a_subject() -> None:
    with pytest.raises(ValueError, match="PaidData has no subject: mark the class with @event"):
        handle(PaidData)
    orders = consumer(lambda self, message: None, PaidData)
    with pytest.raises(ConfigurationError, match="PaidData has no subject"):
        orders.get_filter_subject(orders())
