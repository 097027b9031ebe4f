"""Each kind of annotation, with good, bad and missing data."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from django.db import OperationalError
from typing_extensions import TypedDict

from nats_consumer import Retry
from nats_consumer.exceptions import ConfigurationError, InvalidPayload
from nats_consumer.payloads.decode import decoder_for
from nats_consumer.testing import FakeMessage
from tests.unit.support.libraries import hidden

GOOD = b'{"id": 7, "items": [{"price": "1.50"}]}'
BAD = b'{"id": 7, "items": [{"price": "1.50"}, {"price": []}]}'
MISSING = b'{"items": []}'


class StructItem(msgspec.Struct):
    price: Decimal


class StructOrder(msgspec.Struct):
    id: int
    items: list[StructItem]


class ModelItem(pydantic.BaseModel):
    price: Decimal


class ModelOrder(pydantic.BaseModel):
    id: int
    items: list[ModelItem]


@dataclass
class DataItem:
    price: Decimal


@dataclass
class DataOrder:
    id: int
    items: list[DataItem]


@dataclass
class DataOfModels:
    id: int
    items: list[ModelItem]


class DictItem(TypedDict):
    price: Decimal


class DictOrder(TypedDict):
    id: int
    items: list[DictItem]


class Itself:
    @classmethod
    def __nats_decode__(cls, payload: bytes) -> int:
        return int(payload)


@pytest.fixture(params=["with msgspec", "without msgspec"])
def library(request: pytest.FixtureRequest) -> Iterator[str]:
    with hidden(*(["msgspec"] if request.param == "without msgspec" else [])):
        yield request.param


def decoded(annotation: Any, data: Any, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    message = FakeMessage(data, subject="orders.paid", headers=named or None)
    return decoder_for(annotation)(message)


def price(order: Any) -> Decimal:
    def part(holder: Any, name: str) -> Any:
        return holder[name] if isinstance(holder, dict) else getattr(holder, name)

    return Decimal(part(part(order, "items")[0], "price"))


KINDS = [ModelOrder, DataOrder, DataOfModels, DictOrder, ModelOrder | None]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_payload_of_the_declared_type_is_decoded(kind: Any, library: str) -> None:
    assert price(decoded(kind, GOOD)) == Decimal("1.50")


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_error_names_the_path_of_what_is_wrong(kind: Any, library: str) -> None:
    with pytest.raises(InvalidPayload, match=r"items\[1\].*price"):
        decoded(kind, BAD)
    with pytest.raises(InvalidPayload, match="id"):
        decoded(kind, MISSING)
    with pytest.raises(InvalidPayload):
        decoded(kind, b"{")


def test_a_struct_is_decoded_and_its_error_names_the_path() -> None:
    assert decoded(StructOrder, GOOD) == StructOrder(7, [StructItem(Decimal("1.50"))])
    with pytest.raises(InvalidPayload, match=r"at `\$\.items\[1\]\.price`"):
        decoded(StructOrder, BAD)
    with pytest.raises(InvalidPayload, match="missing required field `id`"):
        decoded(StructOrder, MISSING)
    with pytest.raises(InvalidPayload):
        decoded(StructOrder, b"\xff")
    assert decoded(list[StructItem], b'[{"price": 2}]')[0].price == 2


def test_a_decimal_that_is_not_a_number_is_decoded_by_msgspec_alone() -> None:
    payload = b'{"price": "NaN"}'
    assert decoded(StructItem, payload).price.is_nan()
    with pytest.raises(InvalidPayload, match="finite number"):
        decoded(ModelItem, payload)


def test_bytes_get_the_payload_as_it_is() -> None:
    assert decoded(bytes, b"\xff", Content_Type="image/png") == b"\xff"


def test_a_dict_gets_an_object_and_nothing_else() -> None:
    assert decoded(dict[str, Any], GOOD) == {"id": 7, "items": [{"price": "1.50"}]}
    with pytest.raises(InvalidPayload, match="Expected an object, got list"):
        decoded(dict, b"[]")
    with pytest.raises(InvalidPayload, match="It is not JSON"):
        decoded(dict, b"{")


def test_a_list_gets_an_array_and_nothing_else() -> None:
    assert decoded(list, b"[1]") == [1]
    with pytest.raises(InvalidPayload, match="Expected an array, got dict"):
        decoded(list, b"{}")


def test_a_class_may_decode_itself() -> None:
    assert decoded(Itself, b"7", Content_Type="application/x-protobuf") == 7
    with pytest.raises(InvalidPayload, match=r"__nats_decode__\(\) raised ValueError"):
        decoded(Itself, b"x")


def test_the_error_of_a_class_that_decodes_itself_quotes_no_payload() -> None:
    with pytest.raises(InvalidPayload) as caught:
        decoded(Itself, b"card 4111")
    assert "4111" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "error",
    [OperationalError("away"), ConnectionError("away"), Retry(), InvalidPayload("unsigned")],
)
def test_a_class_that_decodes_itself_may_fail_the_attempt(error: Exception) -> None:
    class Asks:
        @classmethod
        def __nats_decode__(cls, payload: bytes) -> int:
            raise error

    with pytest.raises(type(error)) as caught:
        decoded(Asks, b"x")
    assert caught.value is error


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json; charset=utf-8", "text/json", "application/x.y+json"],
)
def test_content_types_of_json_are_known(kind: str) -> None:
    assert decoded(StructOrder, GOOD, Content_Type=kind).id == 7
    assert decoded(dict, GOOD, Content_Type=kind)["id"] == 7


def test_message_pack_is_decoded_by_its_content_type() -> None:
    packed = msgspec.msgpack.encode({"id": 7, "items": []})
    assert decoded(StructOrder, packed, Content_Type="application/msgpack") == StructOrder(7, [])
    with pytest.raises(InvalidPayload):
        decoded(StructOrder, GOOD, Content_Type="application/msgpack")


@pytest.mark.parametrize("kind", [StructOrder, ModelOrder, dict])
def test_a_content_type_that_the_decoder_does_not_know_is_an_error(kind: Any) -> None:
    with pytest.raises(InvalidPayload, match="Its Content-Type is 'text/csv'"):
        decoded(kind, GOOD, Content_Type="text/csv")


def test_the_error_says_nothing_of_the_values() -> None:
    with pytest.raises(InvalidPayload) as raised:
        decoded(ModelOrder, b'{"id": "secret", "items": []}')
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


class Card(pydantic.BaseModel):
    kind: Literal["card"]


class Cash(pydantic.BaseModel):
    kind: Literal["cash"]


class ByModels(pydantic.BaseModel):
    how: Annotated[Card | Cash, pydantic.Field(discriminator="kind")]


class TaggedCard(msgspec.Struct, tag="card", tag_field="kind"):
    pass


class TaggedCash(msgspec.Struct, tag="cash", tag_field="kind"):
    pass


class ByTags(msgspec.Struct):
    how: TaggedCard | TaggedCash


class ByLiteral(TypedDict):
    how: dict[str, Literal["card", "cash"]]


@pytest.mark.parametrize("kind", [ByModels, ByTags, ByLiteral])
@pytest.mark.parametrize("value", ["secret", "it's `secret`", '"secret"', "secret" * 100_000])
def test_an_unknown_tag_or_choice_does_not_get_into_the_error(kind: Any, value: str) -> None:
    with pytest.raises(InvalidPayload) as raised:
        decoded(kind, json.dumps({"how": {"kind": value}}).encode())
    assert "secret" not in str(raised.value)
    assert str(raised.value).endswith(("at `$.how`", "at `$.how.kind`", "at `$.how[...]`"))


def test_another_error_of_a_validator_is_no_invalid_payload() -> None:
    class Order(pydantic.BaseModel):
        id: int

        @pydantic.field_validator("id")
        @classmethod
        def ask(cls, number: int) -> int:
            raise ConnectionError("the database is away")

    with pytest.raises(ConnectionError):
        decoded(Order, b'{"id": 7}')


def test_a_class_that_no_library_knows_is_refused() -> None:
    class Odd:
        pass

    with pytest.raises(ConfigurationError, match=r"can decode .*Odd"):
        decoder_for(Odd)
