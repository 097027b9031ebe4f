"""Events, and what publishing makes of objects with a type."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
from django.test import TestCase
from django.utils.functional import lazystr

from nats_consumer import Outgoing, event, publish, publish_many, publish_on_commit
from nats_consumer.checks import check_events
from nats_consumer.exceptions import InvalidMessage, Unserializable
from nats_consumer.payloads import libraries
from nats_consumer.testing import Published, capture_published
from tests.unit.support.libraries import hidden


@pytest.fixture(autouse=True)
def no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("nats_consumer.payloads.event"), "_events", {})


@pytest.fixture
def no_libraries() -> Iterator[None]:
    with hidden("msgspec", "pydantic"):
        yield


def published(*args: Any, **kwargs: Any) -> Published:
    with capture_published() as captured:
        publish(*args, **kwargs)
    (found,) = captured
    return found


class Struct(msgspec.Struct):
    id: int
    total: Decimal


class Model(pydantic.BaseModel):
    id: int
    total: Decimal


@dataclass
class Data:
    id: int
    total: Decimal


class Dict(TypedDict):
    id: int
    total: Decimal


JSON = {"id": 7, "total": "1.50"}


@pytest.mark.parametrize("kind", [Struct, Model, Data])
def test_an_event_is_published_to_its_subject_with_its_type(kind: Any) -> None:
    event("orders.{id}.paid")(kind)
    found = published(kind(id=7, total=Decimal("1.50")))
    assert (found.subject, found.json()) == ("orders.7.paid", JSON)
    assert found.headers == {
        "Content-Type": "application/json",
        "Event-Type": f"{kind.__name__}; version=1",
    }


def test_an_event_without_instances_of_its_own_is_published_by_its_class() -> None:
    event("orders.{id}.paid", version=2)(Dict)
    found = published(Dict, {"id": 7, "total": Decimal("1.50")})
    assert (found.subject, found.json()) == ("orders.7.paid", JSON)
    assert found.headers is not None
    assert found.headers["Event-Type"] == "Dict; version=2"


def test_a_name_without_a_field_is_an_argument_and_an_argument_wins() -> None:
    event("{tenant}.orders.{id}.paid")(Struct)
    paid = Struct(id=7, total=Decimal(1))
    assert published(paid, tenant="acme").subject == "acme.orders.7.paid"
    assert published(paid, tenant="acme", id=8).subject == "acme.orders.8.paid"
    with capture_published(), pytest.raises(TypeError, match="one value for each of its names"):
        publish(paid)


def test_a_field_of_an_event_can_add_no_token() -> None:
    @event("orders.{id}.paid")
    @dataclass
    class Paid:
        id: str

    with capture_published() as captured, pytest.raises(InvalidMessage, match="cannot be a token"):
        publish(Paid(id="7.>"))
    assert captured == []


def test_own_headers_win_over_those_of_the_type() -> None:
    event("orders.{id}.paid")(Struct)
    headers = {"Content-Type": "application/x.y+json", "Source": "shop"}
    found = published(Struct(id=7, total=Decimal(1)), headers=headers, msg_id="7")
    assert found.headers == {
        "Content-Type": "application/x.y+json",
        "Event-Type": "Struct; version=1",
        "Source": "shop",
        "Nats-Msg-Id": "7",
    }


def test_message_pack_is_published_where_the_event_says_so() -> None:
    @event("orders.{id}.paid", encoding="msgpack")
    class Paid(msgspec.Struct):
        id: int

    found = published(Paid(id=7))
    assert msgspec.msgpack.decode(found.data) == {"id": 7}
    assert found.headers is not None
    assert found.headers["Content-Type"] == "application/msgpack"


@pytest.mark.parametrize("kind", [Struct, Model, Data])
def test_an_object_with_a_type_is_encoded_by_it_without_being_an_event(kind: Any) -> None:
    found = published("orders.paid", kind(id=7, total=Decimal("1.50")))
    assert found.json() == JSON
    assert found.headers == {"Content-Type": "application/json"}


class FloatStruct(msgspec.Struct):
    weight: float | None


class FloatModel(pydantic.BaseModel):
    weight: float | None


@dataclass
class FloatData:
    weight: float | None


@dataclass
class FloatDataOfModel:
    weight: FloatModel


def floats(number: float | None) -> list[Any]:
    model = FloatModel(weight=number)
    return [FloatStruct(number), model, FloatData(number), FloatDataOfModel(model)]


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_refused_and_not_published_as_null(
    place: int, number: float
) -> None:
    with pytest.raises(Unserializable, match="not JSON compliant"):
        published("orders.paid", floats(number)[place])
    published("orders.paid", floats(None)[place])


@pytest.mark.parametrize("kind", [Struct, Data, Model])
def test_a_decimal_that_is_not_a_number_is_a_string_as_every_decimal_is(kind: type) -> None:
    make = getattr(kind, "model_construct", kind)
    assert published("orders.paid", make(id=7, total=Decimal("NaN"))).json()["total"] == "NaN"


def test_a_model_may_say_how_it_writes_a_number_that_json_does_not_have() -> None:
    class Weighed(pydantic.BaseModel, ser_json_inf_nan="null"):
        weight: float

    assert published("orders.paid", Weighed(weight=float("nan"))).json() == {"weight": None}


def test_a_dataclass_is_looked_at_once_however_often_it_is_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass
    class Once:
        id: int

    published("orders.paid", Once(1))
    monkeypatch.setattr(libraries, "knows", None)
    assert published("orders.paid", Once(2)).json() == {"id": 2}


def test_a_dataclass_needs_no_library_to_be_published(no_libraries: None) -> None:
    found = published("orders.paid", Data(id=7, total=Decimal("1.50")))
    assert found.json() == JSON


def test_what_django_knows_may_be_in_a_struct() -> None:
    class Note(msgspec.Struct):
        text: Any
        when: datetime

    found = published("notes", Note(lazystr("hello"), datetime(2026, 1, 2, tzinfo=UTC)))
    assert found.json() == {"text": "hello", "when": "2026-01-02T00:00:00Z"}


def test_a_class_may_encode_itself() -> None:
    class Itself:
        def __nats_encode__(self) -> bytes:
            return b"\x00\x01"

    found = published("orders.paid", Itself())
    assert (found.data, found.headers) == (b"\x00\x01", None)


@pytest.mark.parametrize("data", [{"id": 7}, [1], 7, "text", b"bytes"])
def test_plain_data_has_no_headers_as_ever(data: Any) -> None:
    assert published("orders.paid", data).headers is None


def test_an_object_that_nothing_can_encode_is_unserializable() -> None:
    class Note(msgspec.Struct):
        text: Any

    for data in (object(), Note(object())):
        with capture_published(), pytest.raises(Unserializable, match=r"'orders\.paid'"):
            publish("orders.paid", data)


@pytest.mark.django_db
def test_every_way_to_publish_takes_events() -> None:
    event("orders.{id}.paid")(Struct)
    one, two, three, four = (Struct(id=number, total=Decimal(1)) for number in range(1, 5))
    with capture_published() as captured, TestCase.captureOnCommitCallbacks(execute=True):
        publish_on_commit(four)
        publish_many([one, (Struct, two), Outgoing(Struct, three, msg_id="3")])
    assert [each.subject for each in captured] == [f"orders.{n}.paid" for n in (1, 2, 3, 4)]
    assert [each.msg_id for each in captured] == [None, None, "3", None]


@pytest.mark.parametrize("message", ["ab", b"ab", ("orders.paid",), 7, None, {"a": 1, "b": 2}])
def test_what_is_no_pair_is_not_unpacked_and_published(message: Any) -> None:
    with capture_published() as captured:
        with pytest.raises(TypeError, match=r"a message is \(subject, data\)"):
            publish_many([("orders.paid", b""), message])
        assert captured == []


def test_publishing_needs_data_or_an_event() -> None:
    with capture_published(), pytest.raises(TypeError, match="publish needs data for"):
        publish("orders.paid")
    for wrong in (7, Struct, Struct(7, Decimal(1)), b"orders"):
        with capture_published(), pytest.raises(TypeError, match="or an event of @event"):
            publish(wrong, {})


@pytest.mark.parametrize(
    ("subject", "options", "error"),
    [
        ("orders.*", {}, ValueError),
        ("orders.{id", {}, ValueError),
        ("orders..paid", {}, ValueError),
        ("orders.paid", {"version": 0}, TypeError),
        ("orders.paid", {"version": "2"}, TypeError),
        ("orders.paid", {"encoding": "xml"}, ValueError),
    ],
)
def test_an_event_that_cannot_be_declared_is_refused(
    subject: str, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        event(subject, **options)


def test_only_a_class_is_an_event_and_pydantic_has_no_message_pack() -> None:
    with pytest.raises(TypeError, match="marks a class"):
        event("orders.paid")(7)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="no MessagePack"):
        event("orders.paid", encoding="msgpack")(Model)


def test_two_events_of_one_subject_and_version_are_found_by_the_check() -> None:
    event("orders.{id}.paid")(Struct)
    event("orders.{number}.paid", version=2)(Data)
    assert check_events() == []
    event("orders.{number}.paid")(Model)
    (problem,) = check_events()
    assert problem.id == "nats_consumer.E007"
    assert "Struct and" in str(problem.msg)
    assert "Model" in str(problem.msg)
