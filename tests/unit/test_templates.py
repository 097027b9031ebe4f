"""Names in subjects, in declarations and in publishing."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import pytest
from django.test import TestCase
from hypothesis import given
from hypothesis import strategies as st

from nats_consumer import (
    ConsumerHandler,
    JetstreamPullConsumer,
    Outgoing,
    handle,
    publish,
    publish_many,
    publish_on_commit,
)
from nats_consumer.checks import check_consumers
from nats_consumer.declare.filters import filter_of
from nats_consumer.exceptions import ConfigurationError, InvalidMessage
from nats_consumer.templates import filled, pattern_of
from nats_consumer.testing import capture_published
from tests.unit.support.doubles import FakeMessage

PAID = "orders.{id}.paid"
SOME_UUID = UUID("12345678-1234-5678-1234-567812345678")


class Kind(Enum):
    GIFT = "gift"


class Size(IntEnum):
    LARGE = 3


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("orders.{id}.paid", "orders.*.paid"),
        ("{tenant}.orders.>", "*.orders.>"),
        ("orders.*.{kind}", "orders.*.*"),
        ("orders.created", "orders.created"),
    ],
)
def test_a_name_in_a_filter_stands_for_one_token(text: str, pattern: str) -> None:
    assert pattern_of(text) == pattern


@pytest.mark.parametrize("text", ["orders.{id", "orders.{order-id}", "orders.no{id}", "{a}.{a}"])
def test_a_malformed_template_is_refused_in_a_filter_and_at_a_method(text: str) -> None:
    class Orders(JetstreamPullConsumer):
        stream_name = "orders"
        filter_subject = text

    with pytest.raises(ConfigurationError, match="cannot use this filter"):
        filter_of(Orders)
    with pytest.raises(ValueError, match="@handle cannot match that"):
        handle(text)


def test_a_consumer_with_names_in_its_filters_asks_the_server_for_wildcards() -> None:
    class Orders(JetstreamPullConsumer):
        stream_name = "orders"
        filter_subjects = [PAID, "orders.{id}.sent"]

        async def handle_message(self, message: Any) -> None:
            return

    assert filter_of(Orders) == ["orders.*.paid", "orders.*.sent"]
    assert Orders().get_filter_subject() == "orders.*.paid"
    assert check_consumers() == []


def test_filters_that_differ_only_in_their_names_overlap() -> None:
    class Orders(JetstreamPullConsumer):
        stream_name = "orders"
        filter_subjects = ["orders.{id}", "orders.{number}"]

    with pytest.raises(ConfigurationError, match="overlap"):
        filter_of(Orders)


def test_the_first_of_several_subjects_covers_others_by_its_names() -> None:
    class Orders(JetstreamPullConsumer):
        stream_name = "orders"
        subjects = ["orders.{id}", "orders.created"]

        async def handle_message(self, message: Any) -> None:
            return

    assert check_consumers() == []


@pytest.mark.anyio
async def test_a_method_gets_the_messages_whose_subject_fits_its_template() -> None:
    got: list[str] = []

    class Orders(ConsumerHandler):
        @handle(PAID)
        async def handle_paid(self, message: Any) -> None:
            got.append(f"paid {message.subject}")

        @handle("orders.vip.paid")
        async def handle_vip(self, message: Any) -> None:
            got.append(f"vip {message.subject}")

    handler = Orders()
    await handler.handle(FakeMessage("orders.7.paid"))
    await handler.handle(FakeMessage("orders.vip.paid"))
    assert got == ["paid orders.7.paid", "vip orders.vip.paid"]
    assert handler.get_subjects() == ["orders.*.paid", "orders.vip.paid"]


def test_a_template_in_the_list_of_subjects_leads_to_no_method_as_a_wildcard_does() -> None:
    class Orders(ConsumerHandler):
        def __init__(self) -> None:
            super().__init__([PAID])

    assert Orders().get_handler_methods() == []
    assert Orders().wildcards_without_method() == [PAID]


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (7, "7"),
        ("gift", "gift"),
        (SOME_UUID, str(SOME_UUID)),
        (date(2026, 11, 29), "2026-11-29"),
        (Kind.GIFT, "gift"),
        (Size.LARGE, "3"),
    ],
)
def test_a_value_becomes_a_token(value: Any, token: str) -> None:
    assert filled(PAID, {"id": value}) == f"orders.{token}.paid"


@pytest.mark.parametrize("value", [None, 1.5, True, b"7", ["7"], datetime(2026, 1, 1, tzinfo=UTC)])
def test_a_value_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="'id' in a subject must be text"):
        filled(PAID, {"id": value})


@pytest.mark.parametrize("value", ["", "7.>", "7.refunded", "*", ">", "a b", "a\r\nPUB x 0\r\n"])
def test_a_value_that_would_add_a_token_cannot_be_published(value: str) -> None:
    with capture_published() as published:
        with pytest.raises(InvalidMessage, match="cannot be a token"):
            publish(PAID, {}, id=value)
        with pytest.raises(InvalidMessage):
            publish_many([Outgoing(PAID, b"", values={"id": value})])
    assert published == []


@given(st.text())
def test_whatever_a_user_enters_the_subject_keeps_its_tokens(value: str) -> None:
    try:
        subject = filled(PAID, {"id": value})
    except InvalidMessage:
        return
    assert subject.split(".") == ["orders", value, "paid"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: publish(PAID, {}),
        lambda: publish(PAID, {}, id=7, kind="gift"),
        lambda: publish("orders.paid", {}, id=7),
        lambda: publish("orders.paid", {}, msgid="7"),
        lambda: publish_many([(PAID, b"")]),
    ],
)
def test_names_and_values_have_to_agree(call: Callable[[], object]) -> None:
    with capture_published() as published, pytest.raises(TypeError, match="one value for each"):
        call()
    assert published == []


@pytest.mark.django_db
def test_every_way_to_publish_fills_a_template() -> None:
    with capture_published() as published:
        publish(PAID, b"", id=1)
        publish_many([Outgoing(PAID, b"", values={"id": 2}), ("orders.3.paid", b"")])
        with TestCase.captureOnCommitCallbacks(execute=True):
            publish_on_commit(PAID, b"", id=4)
    assert [each.subject for each in published] == [f"orders.{n}.paid" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("subject", ["orders.{id", "orders.{id}.*"])
def test_what_is_not_a_template_to_publish_to_is_refused(subject: str) -> None:
    with capture_published() as published, pytest.raises((InvalidMessage, TypeError)):
        publish(subject, b"")
    with capture_published(), pytest.raises(InvalidMessage):
        publish("orders.{id}.*", b"", id=7)
    assert published == []
