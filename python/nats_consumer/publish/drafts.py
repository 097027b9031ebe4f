"""Drafts: messages to publish, checked and encoded."""

import json
from collections.abc import Iterable, Mapping
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


def make_draft(
    subject: str, data: Any, headers: Mapping[str, str] | None, msg_id: MsgId | None
) -> Draft:
    """The message as the engine takes it. Raises TypeError or Unserializable."""
    if not isinstance(subject, str):
        raise TypeError(f"subject must be text such as 'orders.created', not {subject!r}.")
    lines = checked_headers(headers) if headers else None
    if msg_id is not None:
        lines = {**(lines or {}), MSG_ID: _checked_msg_id(msg_id)}
    return subject, _encode(subject, data), lines


def make_drafts(messages: Iterable[tuple[str, Any]]) -> "Drafts":
    """The messages, all of them checked. A note on an exception says which message it is about."""
    from nats_consumer import _native

    return _native.Drafts(messages, _bare_draft)


def _bare_draft(message: tuple[str, Any]) -> Draft:
    subject, data = message
    return make_draft(subject, data, None, None)


def _checked_msg_id(msg_id: MsgId) -> str:
    if isinstance(msg_id, bool) or not isinstance(msg_id, str | int | UUID):
        raise TypeError(f"msg_id must be text, an int or a UUID, not {msg_id!r}.")
    return str(msg_id)


def _encode(subject: str, data: Any) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if isinstance(data, str):
        return data.encode()
    try:
        return json.dumps(data, cls=DjangoJSONEncoder).encode()
    except (TypeError, ValueError) as error:
        raise Unserializable(
            f"The data for {subject!r} cannot be written as JSON: {error}. Publish what Django's "
            "encoder knows, or encode it yourself and publish bytes."
        ) from error
