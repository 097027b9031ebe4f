"""Drafts: messages to publish, checked and encoded."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from django.core.serializers.json import DjangoJSONEncoder

from nats_consumer.client.outgoing import checked_headers
from nats_consumer.exceptions import Unserializable
from nats_consumer.payloads.decode import CONTENT_TYPE, JSON
from nats_consumer.payloads.encode import encoded
from nats_consumer.payloads.event import Event, event_of, values_for
from nats_consumer.templates import TokenValue, filled, has_names

from .times import At, Ttl, lines_of

if TYPE_CHECKING:
    from nats_consumer._native import Drafts

MsgId: TypeAlias = str | int | UUID
# Subject, payload and headers, as the engine takes them.
Draft: TypeAlias = tuple[str, bytes, dict[str, str] | None]

MSG_ID = "Nats-Msg-Id"


# The data of an event: the event itself.
OWN: Any = object()

EVENT_TYPE = "Event-Type"


@dataclass(frozen=True)
class Outgoing:
    """A message for publish_many() with more than a subject and data. The arguments are those of
    publish(): `subject` may be an event class. `values` are for the names in the subject, as in
    {"id": 7}. `key` is for the outbox: messages with the same key stay in order."""

    subject: str | type
    data: Any
    headers: Mapping[str, str] | None = None
    msg_id: MsgId | None = None
    key: MsgId | None = None
    values: Mapping[str, TokenValue] | None = None
    at: At | None = None
    ttl: Ttl | None = None


def make_draft(
    subject: Any,
    data: Any,
    headers: Mapping[str, str] | None,
    msg_id: MsgId | None,
    values: Mapping[str, TokenValue] | None = None,
    at: At | None = None,
    ttl: Ttl | None = None,
    *,
    is_filled: bool = False,
) -> Draft:
    """The message as the engine takes it. If the subject is filled already, its braces are text.
    Raises TypeError, ValueError, InvalidMessage or Unserializable."""
    if isinstance(subject, str) and data is not OWN:
        event = event_of(type(data))
    else:
        event, data = _event(subject, data)
        subject, values = event.subject, values_for(event, data, values or {})
        is_filled = False
    if not is_filled and (values or has_names(subject)):
        subject = filled(subject, values or {})
    _check_characters("subject", subject)
    payload, own = _encode(subject, data, event)
    lines = checked_headers(headers) if headers else None
    if own:
        lines = {**own, **(lines or {})}
    if msg_id is not None:
        lines = {**(lines or {}), MSG_ID: checked_id("msg_id", msg_id)}
    if at is not None or ttl is not None:
        lines = {**(lines or {}), **lines_of(at, ttl)}
    for name, value in (lines or {}).items():
        _check_characters("headers", name)
        _check_characters("headers", value)
    return subject, payload, lines


def _event(subject: Any, data: Any) -> tuple[Event, Any]:
    """The event, from an event class and data, or from an event alone; and the data."""
    kind = type(subject) if data is OWN else subject
    event = event_of(kind)
    if event is None and isinstance(subject, str):
        raise TypeError(f"publish needs data for {subject!r}: publish({subject!r}, data).")
    if event is None:
        raise TypeError(
            "subject must be text such as 'orders.created', or an event of @event, not "
            f"{subject!r}."
        )
    return event, subject if data is OWN else data


def make_drafts(messages: Iterable[Any]) -> "Drafts":
    """The messages, all of them checked. A note on an exception says which message it is about."""
    from nats_consumer import _native

    return _native.Drafts(messages, draft_of)


def pack(drafts: Iterable[Draft]) -> "Drafts":
    """The drafts, all of them checked by the engine. Raises as make_drafts()."""
    from nats_consumer import _native

    return _native.Drafts(drafts, lambda draft: draft)


def draft_of(message: Any, *, is_filled: bool = False) -> Draft:
    """The message as the engine takes it. Raises TypeError or Unserializable."""
    if event_of(type(message)):
        return make_draft(message, OWN, None, None)
    if isinstance(message, Outgoing):
        return make_draft(
            message.subject,
            message.data,
            message.headers,
            message.msg_id,
            message.values,
            message.at,
            message.ttl,
            is_filled=is_filled,
        )
    # Not whatever can be unpacked: "ab" would be published to "a".
    if not isinstance(message, tuple | list) or len(message) != 2:
        raise TypeError(
            "a message is (subject, data), an event or an Outgoing, and not of the type "
            f"{type(message).__name__}."
        )
    subject, data = message
    return make_draft(subject, data, None, None)


def key_of(message: Any) -> MsgId | None:
    """Return the key of messages that stay in order with this one; None means its subject."""
    return message.key if isinstance(message, Outgoing) else None


def checked_id(name: str, value: MsgId) -> str:
    """The value of the argument `name` as text. Raises TypeError for another type."""
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise TypeError(f"{name} must be text, an int or a UUID, not {value!r}.")
    return str(value)


def _encode(subject: str, data: Any, event: Event | None) -> tuple[bytes, Mapping[str, str] | None]:
    """The payload, and the headers that tell of its type if it has one."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data), None
    if isinstance(data, str):
        _check_characters("data", data)
        return data.encode(), None
    try:
        typed = encoded(data, event.encoding if event else "json")
        payload, kind = typed or (_json(data), JSON if event else None)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unserializable(
            f"The data for {subject!r} cannot be written as JSON: {error}. Publish what Django's "
            "encoder knows, a dataclass or a class of msgspec or pydantic, or encode it yourself "
            "and publish bytes."
        ) from error
    own = {CONTENT_TYPE: kind} if kind else {}
    if event:
        own[EVENT_TYPE] = event.label
    return payload, own


def _json(data: Any) -> bytes:
    text = json.dumps(data, cls=DjangoJSONEncoder, allow_nan=False)
    if "\\ud" in text:
        # JSON has an escape for half a character, which readers refuse or change.
        json.dumps(data, cls=DjangoJSONEncoder, ensure_ascii=False).encode()
    return text.encode()


def _check_characters(what: str, text: str) -> None:
    """Raises Unserializable, which is also an InvalidMessage, for half a character."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unserializable(
            f"{what} cannot be written as UTF-8: {error}. Remove the lone surrogate, which often "
            "stands for a byte that was not decoded, or publish bytes."
        ) from error


def checked_timeout(timeout: float) -> float:
    """The seconds. Raises TypeError or ValueError for anything else."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}.")
    if not 0 <= timeout < inf:
        raise ValueError(f"timeout must be a number of seconds, at least 0, not {timeout!r}.")
    return timeout
