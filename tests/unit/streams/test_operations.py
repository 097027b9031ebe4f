"""Operations on streams, against a JetStream API in memory."""

import asyncio
from typing import Any

import pytest

from nats_consumer import operations
from nats_consumer.client import Client
from nats_consumer.exceptions import (
    ApiError,
    ConfigurationError,
    StreamMismatch,
    StreamNotFound,
    SubjectsOverlap,
)
from tests.unit.support.doubles import FakeConnection


def execute(operation: operations.StreamOperation, connection: FakeConnection) -> None:
    asyncio.run(operation.execute(Client(connection)))


def test_a_stream_is_created_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nats_consumer")
    connection = FakeConnection()
    create = operations.CreateStream(name="orders", subjects=["orders.>"], storage="file")
    execute(create, connection)
    execute(create, connection)
    assert connection.streams["orders"]["storage"] == "file"
    assert "created" in caplog.records[0].getMessage()
    assert "already exists" in caplog.records[1].getMessage()


def test_creating_a_stream_that_lacks_subjects_changes_nothing_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection = FakeConnection(orders={"subjects": ["orders.created"]})
    subjects = ["orders.created", "orders.updated"]
    execute(operations.CreateStream(name="orders", subjects=subjects), connection)
    assert connection.streams["orders"]["subjects"] == ["orders.created"]
    assert "['orders.updated']" in caplog.text
    assert "CreateOrUpdateStream" in caplog.text


def test_creating_a_stream_that_is_configured_differently_names_the_differences(
    caplog: pytest.LogCaptureFixture,
) -> None:
    present = {"subjects": ["a"], "storage": "file", "max_age": 60_000_000_000, "max_msgs": -1}
    connection = FakeConnection(orders=present)
    create = operations.CreateStream(
        name="orders", subjects=["a"], storage="memory", max_age=5, max_msgs=0, no_ack=False
    )
    execute(create, connection)
    assert connection.streams["orders"]["storage"] == "file"
    (record,) = caplog.records
    assert "with max_age=60.0 instead of 5, storage='file' instead of 'memory'. Cre" in (
        record.getMessage()
    )


def test_what_the_server_adds_to_a_stream_is_no_difference(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metadata = {"team": "sales", "_nats.ver": "2.15.1"}
    connection = FakeConnection(orders={"subjects": ["a"], "metadata": metadata})
    create = operations.CreateStream(name="orders", subjects=["a"], metadata={"team": "sales"})
    execute(create, connection)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: operations.CreateStream(name="orders", storage="disk"),
            "storage of CreateStream must be one of 'file', 'memory', not 'disk'",
        ),
        (
            lambda: operations.UpdateStream(name="orders", retention="work_queue"),
            "retention of UpdateStream must be one of 'limits', 'interest', 'workqueue', not",
        ),
        (
            lambda: operations.CreateConsumer(
                stream="orders", durable_name="mail", ack_policy="al"
            ),
            "ack_policy of CreateConsumer must be one of 'none', 'all', 'explicit'",
        ),
    ],
)
def test_a_word_that_a_field_does_not_take_is_refused_with_those_that_it_takes(
    make: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


class Unchangeable(FakeConnection):
    def _update(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        text = "stream configuration update can not change storage type"
        raise ApiError(500, 10052, text)


@pytest.mark.parametrize("kind", [operations.CreateOrUpdateStream, operations.UpdateStream])
def test_what_the_server_cannot_change_is_refused_with_the_streams_name_and_a_remedy(
    kind: type[operations.StreamOperation],
) -> None:
    connection = Unchangeable(orders={"subjects": ["a"], "storage": "file"})
    with pytest.raises(StreamMismatch, match=r"'orders'.* change storage type") as caught:
        execute(kind(name="orders", storage="memory"), connection)
    assert "manage.py nats_delete_stream orders" in str(caught.value)


def test_a_stream_that_somebody_else_creates_meanwhile_is_taken_as_it_is() -> None:
    class Racing(FakeConnection):
        def _create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
            self.streams[name] = {"name": name, "subjects": ["orders.>"], "max_msgs": 5}
            return super()._create(name, body)

    connection = Racing()
    execute(operations.CreateStream(name="orders", subjects=["orders.>"]), connection)
    assert connection.streams["orders"]["max_msgs"] == 5


def test_an_update_keeps_what_it_does_not_name() -> None:
    connection = FakeConnection(
        orders={"subjects": ["orders.created"], "description": "kept", "unknown_here": 1}
    )
    update = operations.UpdateStream(name="orders", subjects=["orders.>"], max_age=60)
    execute(update, connection)
    assert connection.streams["orders"] == {
        "name": "orders",
        "subjects": ["orders.>"],
        "max_age": 60_000_000_000,
        "description": "kept",
        "unknown_here": 1,
    }


@pytest.mark.parametrize(
    "operation",
    [operations.UpdateStream(name="orders", max_msgs=1), operations.DeleteStream("orders")],
)
def test_a_missing_stream_is_a_warning(
    operation: operations.StreamOperation, caplog: pytest.LogCaptureFixture
) -> None:
    connection = FakeConnection()
    execute(operation, connection)
    assert connection.streams == {}
    assert "Stream orders does not exist" in caplog.text


def test_create_or_update_does_what_is_needed() -> None:
    connection = FakeConnection()
    execute(operations.CreateOrUpdateStream(name="orders", subjects=["a"]), connection)
    execute(operations.CreateOrUpdateStream(name="orders", max_msgs=9), connection)
    assert connection.streams["orders"] == {"name": "orders", "subjects": ["a"], "max_msgs": 9}


def test_a_stream_is_deleted() -> None:
    connection = FakeConnection(orders={"subjects": ["a"]}, other={"subjects": ["b"]})
    execute(operations.DeleteStream("orders"), connection)
    assert list(connection.streams) == ["other"]


@pytest.mark.parametrize(
    "operation",
    [
        operations.CreateStream(name="orders", subjects=["mine", "shop.sold"]),
        operations.CreateOrUpdateStream(name="orders", subjects=["mine", "shop.sold"]),
    ],
)
def test_subjects_of_another_stream_are_refused_with_its_name(
    operation: operations.StreamOperation,
) -> None:
    connection = FakeConnection(shop={"subjects": ["shop.sold"]})
    with pytest.raises(SubjectsOverlap, match=r"'shop\.sold' belongs to stream 'shop'"):
        execute(operation, connection)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({}, ValueError, "needs the stream's name"),
        ({"name": "my orders"}, ValueError, "cannot contain spaces"),
        (
            {"name": "orders", "subjcts": ["a"]},
            ConfigurationError,
            "CreateStream has no field 'subjcts'. Did you mean 'subjects'",
        ),
    ],
)
def test_a_mistake_is_refused_when_the_operation_is_made(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        operations.CreateStream(**fields)


def test_information_on_a_missing_stream_names_the_remedy() -> None:
    jetstream = Client(FakeConnection()).jetstream()
    with pytest.raises(StreamNotFound, match=r"'orders' does not exist.*--setup"):
        asyncio.run(jetstream.stream_info("orders"))


def test_publishing_returns_where_the_message_is() -> None:
    connection = FakeConnection()
    jetstream = Client(connection).jetstream()
    ack = asyncio.run(
        jetstream.publish("orders.created", b"{}", stream="orders", headers={"a": "b"})
    )
    assert (ack.stream, ack.seq, ack.duplicate) == ("orders", 1, None)
    (sent,) = connection.published
    assert sent == ("orders.created", b"{}", 5.0, {"a": "b", "Nats-Expected-Stream": "orders"})
