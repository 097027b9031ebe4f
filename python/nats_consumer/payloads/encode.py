"""Encoding: the type of an object says how it becomes a payload."""

import dataclasses
import json
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeAlias

from django.core.serializers.json import DjangoJSONEncoder

from nats_consumer.exceptions import Unserializable

from . import libraries
from .decode import JSON, MSGPACK
from .event import Encoding

_Encode: TypeAlias = Callable[[Any], bytes]

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
        return _by_model(data), JSON
    if libraries.is_struct(kind):
        return _by_msgspec(_msgspec(), data), JSON
    if dataclasses.is_dataclass(kind):
        encode = _dataclass_encoder(kind, libraries.msgspec(), libraries.pydantic())
        return encode(data), JSON
    return None


# Looking at a class takes a thousand times as long as encoding one of its objects.
@lru_cache(maxsize=1024)
def _dataclass_encoder(kind: type, msgspec: Any, pydantic: Any) -> _Encode:
    if msgspec and libraries.knows(msgspec, kind):
        return partial(_by_msgspec, msgspec)
    if pydantic:
        return partial(_by_adapter, pydantic.TypeAdapter(kind))
    return _by_django


def _by_msgspec(msgspec: Any, data: Any) -> bytes:
    payload = msgspec.json.encode(data, enc_hook=_django_default)
    plain = partial(msgspec.to_builtins, data, str_keys=True, enc_hook=_django_default)
    return _without_nan(payload, plain)


def _by_model(data: Any) -> bytes:
    payload: bytes = data.model_dump_json().encode()
    if "ser_json_inf_nan" in data.model_config:
        return payload
    return _without_nan(payload, partial(data.model_dump, mode="json"))


def _by_adapter(adapter: Any, data: Any) -> bytes:
    return _without_nan(adapter.dump_json(data), partial(adapter.dump_python, data, mode="json"))


def _by_django(data: Any) -> bytes:
    return DjangoJSONEncoder(allow_nan=False).encode(dataclasses.asdict(data)).encode()


def _without_nan(payload: bytes, plain: Callable[[], Any]) -> bytes:
    """The payload. Raises ValueError for NaN and infinity, which libraries write as null."""
    if b"null" in payload:
        json.dumps(plain(), allow_nan=False, skipkeys=True, default=str)
    return payload


def _msgspec() -> Any:
    found = libraries.msgspec()
    if found is None:
        raise Unserializable(
            "MessagePack needs msgspec. Run: pip install 'django-nats-consumer[msgspec]'"
        )
    return found
