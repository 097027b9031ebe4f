"""Messages that are made ready to be sent."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import Outgoing, publish_on_commit
from nats_consumer.exceptions import InvalidMessage
from nats_consumer.publish.drafts import Draft, draft_of, pack
from nats_consumer.publish.middleware import around, around_all


@contextmanager
def unchanged(messages: Sequence[Outgoing]) -> Iterator[None]:
    """A middleware around publishing."""
    yield


@contextmanager
def filling(messages: list[Outgoing]) -> Iterator[None]:
    """A middleware that puts another message there."""
    messages[0] = Outgoing("orders.{id}.paid", b"", values={"id": 7})
    yield


def use(settings: Settings, middleware: Any) -> None:
    path = f"{__name__}.{middleware.__name__}"
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "publish_middleware": [path]}


@pytest.mark.parametrize("value", ["{x}", "x}", "{"])
def test_a_value_with_a_brace_is_refused(value: str) -> None:
    with pytest.raises(InvalidMessage, match="braces"):
        publish_on_commit("orders.{id}.paid", b"", id=value)


def test_a_subject_that_is_filled_is_not_filled_again() -> None:
    assert draft_of(Outgoing("orders.{x}", b""), is_filled=True)[0] == "orders.{x}"


def test_a_subject_with_a_brace_passes_the_middleware_around_publishing(settings: Settings) -> None:
    use(settings, unchanged)
    drafts: list[Draft] = [("orders.{x}", b"1", None)]
    with around(drafts, "default") as (one,), around_all(pack(drafts), "default") as all_of_them:
        assert one[0] == all_of_them[0][0] == "orders.{x}"


def test_a_message_of_a_middleware_may_have_values(settings: Settings) -> None:
    use(settings, filling)
    with around([("orders.created", b"1", None)], "default") as (one,):
        assert one[0] == "orders.7.paid"
