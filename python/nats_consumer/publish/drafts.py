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

if TYPE_CHECKING:
    from nats_consumer._native import Drafts

MsgId: TypeAlias = str | int | UUID
# Subject, payload and headers, as the engine takes them.
Draft: TypeAlias = tuple[str, bytes, dict[str, str] | None]

MSG_ID = "Nats-Msg-Id"


@dataclass(frozen=True)
class Outgoing:
    """A message for publish_many() with headers or a message id. The arguments are those of
    publish(). `key` is for the outbox: messages with the same key stay in order."""

    subject: str
    data: Any
    headers: Mapping[str, str] | None = None
    msg_id: MsgId | None = None
    key: str | None = None


def make_draft(
    subject: str, data: Any, headers: Mapping[str, str] | None, msg_id: MsgId | None
) -> Draft:
    """The message as the engine takes it. Raises TypeError or Unserializable."""
    if not isinstance(subject, str):
        raise TypeError(f"subject must be text such as 'orders.created', not {subject!r}.")
    _check_characters("subject", subject)
    lines = checked_headers(headers) if headers else None
    if msg_id is not None:
        lines = {**(lines or {}), MSG_ID: _checked_msg_id(msg_id)}
    for name, value in (lines or {}).items():
        _check_characters("headers", name)
        _check_characters("headers", value)
    return subject, _encode(subject, data), lines


def make_drafts(messages: Iterable[Outgoing | tuple[str, Any]]) -> "Drafts":
    """The messages, all of them checked. A note on an exception says which message it is about."""
    from nats_consumer import _native

    return _native.Drafts(messages, draft_of)


def draft_of(message: Outgoing | tuple[str, Any]) -> Draft:
    """The message as the engine takes it. Raises TypeError or Unserializable."""
    if isinstance(message, Outgoing):
        return make_draft(message.subject, message.data, message.headers, message.msg_id)
    subject, data = message
    return make_draft(subject, data, None, None)


def key_of(message: Outgoing | tuple[str, Any]) -> str | None:
    """What the message has to stay in order with; None means its subject."""
    return message.key if isinstance(message, Outgoing) else None


def _checked_msg_id(msg_id: MsgId) -> str:
    if isinstance(msg_id, bool) or not isinstance(msg_id, str | int | UUID):
        raise TypeError(f"msg_id must be text, an int or a UUID, not {msg_id!r}.")
    return str(msg_id)


def _encode(subject: str, data: Any) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if isinstance(data, str):
        _check_characters("data", data)
        return data.encode()
    try:
        text = json.dumps(data, cls=DjangoJSONEncoder, allow_nan=False)
        if "\\ud" in text:
            # JSON has an escape for half a character, which readers refuse or change.
            json.dumps(data, cls=DjangoJSONEncoder, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Unserializable(
            f"The data for {subject!r} cannot be written as JSON: {error}. Publish what Django's "
            "encoder knows, or encode it yourself and publish bytes."
        ) from error
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
