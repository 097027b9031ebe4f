"""Encoding: the type of an object says how it becomes a payload."""

import dataclasses
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from nats_consumer.exceptions import Unserializable

from . import libraries
from .decode import JSON, MSGPACK
from .event import Encoding

_UNTYPED = frozenset({dict, list, tuple, int, float, bool, type(None), str, bytes})
# What Django's encoder knows, and msgspec does not.
_django_default = DjangoJSONEncoder().default


def encoded(data: Any, encoding: Encoding = "json") -> tuple[bytes, str | None] | None:
    """The payload of an object that has a type of its own, with its Content-Type; None for
    others. Raises what its library raises, or Unserializable."""
    kind = type(data)
    if hasattr(kind, "__nats_encode__"):
        return data.__nats_encode__(), None
    if encoding == "msgpack":
        return _msgspec().msgpack.encode(data, enc_hook=_django_default), MSGPACK
    if kind in _UNTYPED:
        return None
    if libraries.is_model(kind):
        return data.model_dump_json().encode(), JSON
    if libraries.is_struct(kind):
        return _msgspec().json.encode(data, enc_hook=_django_default), JSON
    if dataclasses.is_dataclass(kind):
        return _dataclass(data), JSON
    return None


def _dataclass(data: Any) -> bytes:
    msgspec, pydantic = libraries.msgspec(), libraries.pydantic()
    if msgspec and libraries.knows(msgspec, type(data)):
        payload: bytes = msgspec.json.encode(data, enc_hook=_django_default)
    elif pydantic:
        payload = pydantic.TypeAdapter(type(data)).dump_json(data)
    else:
        text = DjangoJSONEncoder(allow_nan=False).encode(dataclasses.asdict(data))
        payload = text.encode()
    return payload


def _msgspec() -> Any:
    found = libraries.msgspec()
    if found is None:
        raise Unserializable(
            "MessagePack needs msgspec. Run: pip install 'django-nats-consumer[msgspec]'"
        )
    return found
