"""manage.py nats_asyncapi: the document of a project, and its comparison with a file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from nats_consumer import ConsumerHandler, JetstreamPullConsumer, Message, event, handle

OWN_APP = "tests.project.orders.events"


@pytest.fixture(autouse=True)
def no_events(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr(import_module("nats_consumer.payloads.event"), "_events", {})
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": ["nats://me:secret-word@a.example:4222", "tls://tok@b:4223"]}
    }


class Item(msgspec.Struct):
    price: Decimal


class Paid(msgspec.Struct):
    """A payment of an order."""

    id: int
    items: list[Item]


class Address(pydantic.BaseModel):
    street: str


class Sent(pydantic.BaseModel):
    id: int
    to: Address


@dataclass
class Refunded:
    id: int
    total: Decimal


def own(subject: str, kind: Any, **options: Any) -> Any:
    """The class as an event of the project's own app."""
    kind.__module__ = OWN_APP
    return event(subject, **options)(kind)


def declare_shop() -> None:
    own("orders.{id}.paid", Paid)
    own("orders.{id}.sent", Sent, description="The order is on its way.")
    own("orders.{id}.refunded", Refunded, encoding="msgpack", version=2)
    event("elsewhere.{id}")(type("OfAPackage", (msgspec.Struct,), {"__module__": "a_package"}))

    class BookPayments(JetstreamPullConsumer):
        """Books each payment."""

        stream_name = "orders"
        filter_subject = Paid
        max_retries = 2

        def handle_message(self, paid: Paid, id: int) -> None: ...  # noqa: A002

    class Everything(JetstreamPullConsumer):
        stream_name = "orders"
        filter_subjects = ("orders.*.paid", "audit.>")

        def handle_message(self, message: Message) -> None: ...


def made(*arguments: str) -> dict[str, Any]:
    out = StringIO()
    call_command("nats_asyncapi", *arguments, stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def references(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        if "$ref" in document:
            yield document["$ref"]
        for each in document.values():
            yield from references(each)
    elif isinstance(document, list):
        for each in document:
            yield from references(each)


def resolved(document: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        document = document[step]
    return document


def test_events_are_sent_with_their_schemas_and_nested_models() -> None:
    declare_shop()
    document = made("--title", "Shop", "--app-version", "7")
    assert document["asyncapi"] == "3.0.0"
    assert document["info"] == {"title": "Shop", "version": "7"}
    paid = document["channels"]["orders.id.paid"]
    assert (paid["address"], paid["parameters"]) == ("orders.{id}.paid", {"id": {}})
    assert document["operations"]["send.Paid"]["action"] == "send"
    assert {"Paid", "Item", "Sent", "Address", "Refunded"} <= set(document["components"]["schemas"])
    messages = document["components"]["messages"]
    assert messages["Paid"]["description"] == "A payment of an order."
    assert messages["Sent"]["description"] == "The order is on its way."
    assert messages["Refunded"]["contentType"] == "application/msgpack"
    assert "description" not in messages["Refunded"]
    assert "OfAPackage" not in messages


def test_consumers_receive_from_the_channels_of_their_filters() -> None:
    declare_shop()
    document = made()
    booking = document["operations"]["BookPayments"]
    assert booking == {
        "action": "receive",
        "channel": {"$ref": "#/channels/orders.id.paid"},
        "messages": [{"$ref": "#/channels/orders.id.paid/messages/Paid"}],
        "description": "Books each payment.",
        "x-nats-consumer": {
            "stream": "orders",
            "durable": "BookPayments",
            "kind": "pull",
            "attempts": 3,
            "deadLetters": "dlq.orders.BookPayments",
        },
    }
    operations = document["operations"]
    # The same wildcards are the same channel, whatever their names.
    assert operations["Everything.orders.id.paid"]["channel"] == booking["channel"]
    assert document["channels"]["audit.rest"]["address"] == "audit.{rest}"


def test_methods_of_handler_classes_receive_too() -> None:
    class Orders(ConsumerHandler):
        @handle("orders.{id}.sent")
        def sent(self, sent: Sent, message: Message) -> None: ...

    Orders.__module__ = OWN_APP
    operations = made()["operations"]
    assert operations["Orders.sent"]["messages"] == [
        {"$ref": "#/channels/orders.id.sent/messages/Sent"}
    ]


def test_every_reference_leads_somewhere() -> None:
    declare_shop()
    document = made()
    assert len(list(references(document))) > 10
    for each in references(document):
        assert resolved(document, each), each


def test_servers_are_named_without_their_credentials() -> None:
    document = made()
    assert document["servers"] == {
        "server1": {"host": "a.example:4222", "protocol": "nats"},
        "server2": {"host": "b:4223", "protocol": "tls"},
    }
    assert "secret-word" not in json.dumps(document)
    assert "tok" not in json.dumps(document["servers"])


def test_a_consumer_of_another_system_names_it_and_its_servers(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"connections": {"analytics": {"servers": "tls://c:4222"}}}

    class Clicks(JetstreamPullConsumer):
        connection = "analytics"
        stream_name = "clicks"
        filter_subject = "clicks.>"

        def handle_message(self, message: Message) -> None: ...

    document = made()
    assert document["servers"]["analytics1"] == {"host": "c:4222", "protocol": "tls"}
    assert document["operations"]["Clicks"]["x-nats-consumer"]["connection"] == "analytics"


def booked(field: str) -> Any:
    return msgspec.defstruct("Booked", [(field, int)])


def test_the_check_passes_for_the_same_code_and_shows_a_field_that_was_renamed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "asyncapi.json"
    own("orders.booked", booked("id"))
    call_command("nats_asyncapi", "--output", str(path))
    call_command("nats_asyncapi", "--check", str(path))
    import_module("nats_consumer.payloads.event")._events.clear()
    own("orders.booked", booked("number"))
    with pytest.raises(CommandError, match="is not up to date") as raised:
        call_command("nats_asyncapi", "--check", str(path))
    lines = [line.replace(" ", "") for line in str(raised.value).splitlines()]
    assert '-"id":{' in lines
    assert '+"number":{' in lines


def test_a_file_that_is_not_there_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("nats_asyncapi", "--check", str(tmp_path / "none.json"))


def test_two_payload_types_of_one_name_are_refused() -> None:
    own("orders.{id}.paid", Paid)
    own("orders.{id}.booked", type("Paid", (msgspec.Struct,), {"__module__": OWN_APP}))
    with pytest.raises(CommandError, match="Two payload types are called Paid"):
        made()


def test_a_consumer_with_a_durable_for_each_process_is_the_same_in_each() -> None:
    class ForgetPrices(JetstreamPullConsumer):
        stream_name = "orders"
        filter_subject = "orders.price"
        ephemeral = True

        def handle_message(self, message: Message) -> None: ...

    extension = made()["operations"]["ForgetPrices"]["x-nats-consumer"]
    assert (extension["durable"], extension["deadLetters"]) == ("*", "dlq.orders.*")


def test_a_consumer_that_cannot_run_is_named() -> None:
    class Broken(JetstreamPullConsumer):
        stream_name = "orders"
        filter_subject = "orders..paid"

        def handle_message(self, message: Message) -> None: ...

    with pytest.raises(CommandError, match="Broken cannot run"):
        made()


def test_a_batch_receives_the_payload_of_each_of_its_messages() -> None:
    class Index(JetstreamPullConsumer):
        stream_name = "orders"
        filter_subject = "orders.paid"
        max_batch = 10

        def handle_batch(self, paid: list[Paid]) -> None: ...

    operation = made()["operations"]["Index"]
    assert operation["messages"][0]["$ref"].endswith("/messages/Paid")
