"""Publishing, up to the engine; tests/live/test_publish.py has the rest."""

import asyncio
import importlib
import threading
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from nats_consumer import apublish, apublish_many, publish, publish_many, publish_on_commit
from nats_consumer.exceptions import InvalidMessage, Unreachable
from nats_consumer.testing import capture_published


@pytest.fixture
def asked_from(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that looked for a server and found none."""
    threads: list[threading.Thread] = []

    def resolve(options: Any) -> None:
        threads.append(threading.current_thread())
        raise Unreachable("the embedded server did not start")

    module = importlib.import_module("nats_consumer.publish.publisher")
    monkeypatch.setattr(module, "resolve", resolve)
    monkeypatch.setattr(module, "_publishers", {})
    return threads


def test_the_first_call_does_not_hold_up_the_event_loop(asked_from: list[Any]) -> None:
    with pytest.raises(Unreachable):
        asyncio.run(apublish("orders.created", {}))
    assert asked_from
    assert threading.main_thread() not in asked_from


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_published_on_commit_is_raised(asked_from: list[Any]) -> None:
    with pytest.raises(Unreachable), transaction.atomic():
        publish_on_commit("orders.created", {})


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_published_on_commit_is_logged_if_it_is_to_be_robust(
    asked_from: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []
    with transaction.atomic():
        publish_on_commit("orders.created", {}, robust=True)
        transaction.on_commit(lambda: done.append("another"))
    assert asked_from
    assert done == ["another"]
    assert "the embedded server did not start" in caplog.text


def test_what_json_cannot_say_is_refused_before_a_server_is_looked_for(
    asked_from: list[Any],
) -> None:
    with pytest.raises(
        TypeError, match=r"The data for 'orders\.created' .*type object is not"
    ) as it:
        publish("orders.created", object())
    assert isinstance(it.value, InvalidMessage)
    assert asked_from == []


@pytest.mark.parametrize("msg_id", [7, "7", UUID(int=7)])
def test_a_primary_key_does_as_a_msg_id(msg_id: Any) -> None:
    with capture_published() as published:
        publish("orders.created", {}, msg_id=msg_id)
    assert published[0].msg_id == str(msg_id)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"msg_id": ["7"]}, r"msg_id must be text, an int or a UUID, not \['7'\]"),
        ({"headers": {"a": 1}}, "headers must have strings as names and values, not 'a': 1"),
        ({"headers": ["a"]}, r"headers must be a dict of strings, not \['a'\]"),
        (
            {"subject": 5},
            "subject must be text such as 'orders.created', or an event of @event, not 5",
        ),
    ],
)
def test_an_argument_of_a_wrong_type_is_named(
    asked_from: list[Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        publish(**{"subject": "orders.created", "data": {}, **arguments})
    assert asked_from == []


def test_the_one_of_many_that_cannot_be_sent_is_named(asked_from: list[Any]) -> None:
    with pytest.raises(InvalidMessage) as caught:
        publish_many([("orders.created", {}), ("orders.paid", object())])
    assert caught.value.__notes__ == ["This was message 1, to 'orders.paid'."]
    assert asked_from == []


def test_publish_on_an_event_loop_recommends_apublish_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def publish_twice() -> None:
        publish("orders.created", {})
        publish_many([("orders.created", {})])

    importlib.import_module("nats_consumer.publish")._recommend_async.cache_clear()
    with capture_published():
        publish("orders.created", {})
        assert caplog.records == []
        asyncio.run(publish_twice())
    (record,) = caplog.records
    assert "await apublish(...)" in record.getMessage()
    assert "await apublish_many(...)" in record.getMessage()


def test_what_async_code_publishes_is_captured() -> None:
    messages = [("orders.created", {"number": 1}), ("orders.paid", b"x")]
    with capture_published() as captured:
        acks = asyncio.run(apublish_many(messages))
        asyncio.run(apublish("orders.sent", ""))
    assert [each.subject for each in captured] == ["orders.created", "orders.paid", "orders.sent"]
    assert [ack.seq for ack in acks] == [1, 2]
