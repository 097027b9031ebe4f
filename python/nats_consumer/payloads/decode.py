"""Decoding: the annotation of a handler's parameter becomes a function of the message."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias, get_args, get_origin

from django.db import Error

from nats_consumer.exceptions import ConfigurationError, InvalidPayload, NatsConsumerError
from nats_consumer.message import Message
from nats_consumer.outcomes import Outcome

from . import libraries
from .event import event_of

Decode: TypeAlias = Callable[[Message], Any]

CONTENT_TYPE = "Content-Type"
JSON = "application/json"
MSGPACK = "application/msgpack"
_MEDIA_TYPES = {
    JSON: JSON,
    "text/json": JSON,
    MSGPACK: MSGPACK,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
}
_PLAIN: dict[Any, str] = {dict: "an object", list: "an array"}
# Errors of msgspec that quote what the message says; the path may follow.
_QUOTING = re.compile(r"""^(Invalid (?:enum )?value) (?:'.*'|".*"|-?\d+)(?=$| - at `)""", re.DOTALL)
# Names of fields may be as long as a message.
_LONGEST_REASON = 500


# Raised by __nats_decode__(), these tell of a database or a network that is away, or are meant as
# they are.
_NOT_OF_THE_PAYLOAD = (Error, OSError, MemoryError, NatsConsumerError, Outcome)


def decoder_for(annotation: Any) -> Decode:
    """The function that decodes a payload for a parameter with this annotation. It raises
    InvalidPayload. Raises ConfigurationError if nothing that is installed can decode it."""
    if annotation is bytes:
        return _data
    if hasattr(annotation, "__nats_decode__"):
        return partial(_by_itself, annotation.__nats_decode__)
    if kind := _plain_kind(annotation):
        return partial(_as_json, kind)
    return partial(_decoded, _decoders(annotation))


def is_payload_class(kind: Any) -> bool:
    """Whether it is certainly a type of payloads, and of nothing else."""
    is_known = libraries.is_struct(kind) or libraries.is_model(kind) or event_of(kind) is not None
    return is_known or hasattr(kind, "__nats_decode__")


def _plain_kind(annotation: Any) -> Any:
    """`dict` or `list`, if the annotation says nothing about what is in there."""
    kind = get_origin(annotation) or annotation
    says_nothing = all(each is Any or each is str for each in get_args(annotation)[:1])
    values = get_args(annotation)[1:] if kind is dict else get_args(annotation)
    if kind in _PLAIN and says_nothing and all(each in (Any, object) for each in values):
        return kind
    return None


def _decoders(annotation: Any) -> Mapping[str, Callable[[bytes], Any]]:
    """The functions that decode, by media type."""
    if libraries.is_model(annotation):
        return {JSON: annotation.model_validate_json}
    msgspec, pydantic = libraries.msgspec(), libraries.pydantic()
    if msgspec and libraries.knows(msgspec, annotation):
        return {
            JSON: msgspec.json.Decoder(annotation).decode,
            MSGPACK: msgspec.msgpack.Decoder(annotation).decode,
        }
    if pydantic:
        try:
            return {JSON: pydantic.TypeAdapter(annotation).validate_json}
        except pydantic.errors.PydanticUserError as error:
            raise ConfigurationError(
                f"no library can decode {_name(annotation)}: {str(error).splitlines()[0]} Use a "
                "dataclass, a TypedDict, a class of msgspec or pydantic, or give the class "
                "__nats_decode__()."
            ) from error
    if msgspec:
        raise ConfigurationError(
            f"msgspec cannot decode {_name(annotation)}. Use a dataclass, a TypedDict or a Struct, "
            "or give the class __nats_decode__()."
        )
    raise ConfigurationError(
        f"{_name(annotation)} needs a library that decodes it. Run: "
        "pip install 'django-nats-consumer[msgspec]', or with [pydantic]."
    )


def _name(annotation: Any) -> str:
    return getattr(annotation, "__qualname__", None) or str(annotation)


def _data(message: Message) -> bytes:
    return message.data


def _by_itself(decode: Callable[[bytes], Any], message: Message) -> Any:
    try:
        return decode(message.data)
    except _NOT_OF_THE_PAYLOAD:
        raise
    except Exception as error:
        # Without its text and its cause: they may quote what the message says.
        raise InvalidPayload(f"__nats_decode__() raised {type(error).__name__}.") from None


def _as_json(kind: type, message: Message) -> Any:
    if _media_type(message) != JSON:
        raise _unknown_media_type(message, [JSON])
    try:
        value = message.json()
    except (ValueError, RecursionError) as error:
        raise InvalidPayload(f"It is not JSON: {error}.") from None
    if not isinstance(value, kind):
        raise InvalidPayload(f"Expected {_PLAIN[kind]}, got {type(value).__name__} - at `$`")
    return value


def _decoded(decoders: Mapping[str, Callable[[bytes], Any]], message: Message) -> Any:
    decode = decoders.get(_media_type(message))
    if decode is None:
        raise _unknown_media_type(message, decoders)
    try:
        return decode(message.data)
    except Exception as error:
        if text := _reason(error):
            # Without its cause: that may quote what the message says.
            raise InvalidPayload(text[:_LONGEST_REASON]) from None
        raise


def _media_type(message: Message) -> str:
    headers = message.headers
    if headers is None or CONTENT_TYPE not in headers:
        return JSON
    media_type = headers[CONTENT_TYPE].partition(";")[0].strip().lower()
    return JSON if media_type.endswith("+json") else _MEDIA_TYPES.get(media_type, media_type)


def _unknown_media_type(message: Message, known: Any) -> InvalidPayload:
    given = (message.headers or {}).get(CONTENT_TYPE)
    return InvalidPayload(f"Its Content-Type is {given!r}, and not {' or '.join(known)}.")


def _reason(error: Exception) -> str | None:
    """The place and the kind of a decoder's error, or None for another error: a database that a
    validator asks may be away."""
    msgspec, pydantic = libraries.msgspec(), libraries.pydantic()
    if pydantic and isinstance(error, pydantic.ValidationError):
        first: Any = error.errors(include_url=False, include_input=False)[0]
        return f"{_message(first)} - at `{_path(first['loc'])}`"
    if msgspec and isinstance(error, msgspec.DecodeError):
        return _QUOTING.sub(r"\1", str(error))
    return str(error) if isinstance(error, ValueError | RecursionError) else None


def _message(error: Mapping[str, Any]) -> str:
    """The message of an error of pydantic, without what the payload says."""
    if error["type"] == "union_tag_invalid":
        return f"Input tag is none of {error['ctx']['expected_tags']}"
    return str(error["msg"])


def _path(location: tuple[str | int, ...]) -> str:
    steps = (f"[{each}]" if isinstance(each, int) else f".{each}" for each in location)
    return "$" + "".join(steps)
