"""Publish to streams from anywhere in a project: views, signals, commands, tasks.

All threads and event loops of a process share one connection, opened on first use; a forked process
opens its own."""

import asyncio
import json
import logging
import os
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction

from nats_consumer.api import PubAck
from nats_consumer.client.outgoing import checked_headers
from nats_consumer.connect import connect_options, resolve
from nats_consumer.exceptions import Unserializable

if TYPE_CHECKING:
    from nats_consumer._native import Drafts, Publisher

logger = logging.getLogger("nats_consumer.publish")

MsgId: TypeAlias = str | int | UUID

_Draft: TypeAlias = tuple[str, bytes, dict[str, str] | None]

MSG_ID = "Nats-Msg-Id"
_DEFAULT_TIMEOUT = 5.0

# By process id: after a fork the connection is the parent's.
_publishers: dict[int, "Publisher"] = {}


def publish(
    subject: str,
    data: Any,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    timeout: float = _DEFAULT_TIMEOUT,
) -> PubAck:
    """Publish `data` and wait, at most `timeout` seconds, until a stream has stored it.

    Bytes and text are sent as they are, anything else as JSON, with what Django's encoder knows
    (dates, decimals, UUIDs). Of messages with the same `msg_id` (text, or an int or UUID, which
    become text), the stream stores one within its duplicate window. Raises NoStreamResponse,
    PublishTimeout, PayloadTooLarge, InvalidMessage, Unserializable, Unreachable or
    ConfigurationError, and ApiError for what else the stream answers, such as that it is full;
    while disconnected it raises soon rather than wait. TypeError names an argument of a wrong
    type.

    On an event loop, use apublish(): this one holds the loop up, and warns of it once."""
    if _on_event_loop():
        _recommend_apublish()
    draft = _draft(subject, data, headers, msg_id)
    return _publisher().publish(draft, timeout)


async def apublish(
    subject: str,
    data: Any,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    timeout: float = _DEFAULT_TIMEOUT,  # noqa: ASYNC109 - it ends the engine's work too
) -> PubAck:
    """publish() for async code."""
    draft = _draft(subject, data, headers, msg_id)
    # In a thread, because the first call may start the embedded server.
    publisher = await asyncio.to_thread(_publisher) if _is_first() else _publisher()
    return await publisher.apublish(draft, timeout)


def publish_many(
    messages: Iterable[tuple[str, Any]], *, timeout: float = _DEFAULT_TIMEOUT
) -> list[PubAck]:
    """Publish (subject, data) pairs in their order without waiting for each, and return their
    confirmations. Far faster than publish() in a loop.

    Raises an ExceptionGroup of what publish() raises if some were not stored; the others were. A
    note on each says which message it was, counted from 0. If one cannot be sent at all, that is
    raised and none is sent.

    On an event loop, use apublish_many(): this one holds the loop up, and warns of it once."""
    if _on_event_loop():
        _recommend_apublish()
    drafts = _drafts(messages)
    return _all_stored(*_publisher().publish_many(drafts, timeout))


async def apublish_many(
    messages: Iterable[tuple[str, Any]],
    *,
    timeout: float = _DEFAULT_TIMEOUT,  # noqa: ASYNC109 - it ends the engine's work too
) -> list[PubAck]:
    """publish_many() for async code."""
    drafts = _drafts(messages)
    results = await asyncio.to_thread(lambda: _publisher().publish_many(drafts, timeout))
    return _all_stored(*results)


def publish_on_commit(
    subject: str,
    data: Any,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    timeout: float = _DEFAULT_TIMEOUT,
    using: str | None = None,
    robust: bool = False,
) -> None:
    """publish() when the current transaction of the database `using` commits, at once if there is
    none; never if it is rolled back.

    The data is encoded now, so that later changes to it are not published. If the process dies
    between the commit and the publishing, the message is lost.

    What publish() raises comes out of the `atomic` block although the data is committed, and what
    else waits for the commit does not run; with `robust`, Django logs it instead."""
    draft = _draft(subject, data, headers, msg_id)
    transaction.on_commit(lambda: _publisher().publish(draft, timeout), using=using, robust=robust)


def _draft(
    subject: str, data: Any, headers: Mapping[str, str] | None, msg_id: MsgId | None
) -> _Draft:
    if not isinstance(subject, str):
        raise TypeError(f"subject must be text such as 'orders.created', not {subject!r}.")
    lines = checked_headers(headers) if headers else None
    if msg_id is not None:
        lines = {**(lines or {}), MSG_ID: _checked_msg_id(msg_id)}
    return subject, _encode(subject, data), lines


def _drafts(messages: Iterable[tuple[str, Any]]) -> "Drafts":
    """The messages, all of them checked. A note on what it raises says which one it is about."""
    from nats_consumer import _native

    return _native.Drafts(messages, _bare_draft)


def _bare_draft(message: tuple[str, Any]) -> _Draft:
    subject, data = message
    return _draft(subject, data, None, None)


def _all_stored(stored: list[PubAck], failed: list[Exception]) -> list[PubAck]:
    """The confirmations. Raises an ExceptionGroup if some were not stored."""
    if failed:
        count = len(stored) + len(failed)
        raise ExceptionGroup(f"{len(failed)} of {count} messages were not stored", failed)
    return stored


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


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@cache
def _recommend_apublish() -> None:
    """Warn of it, the first time."""
    logger.warning(
        "publish() or publish_many() is called on an event loop, which stands still until the "
        "stream has confirmed. Write `await apublish(...)` or `await apublish_many(...)` there."
    )


def _is_first() -> bool:
    return os.getpid() not in _publishers


def _publisher() -> "Publisher":
    pid = os.getpid()
    publisher = _publishers.get(pid)
    if publisher is None:
        # Now only: importing nats_consumer, as every management command does, stays light.
        from nats_consumer import _native

        # Two threads at once make two and keep one; the other has not connected yet.
        options = resolve(connect_options({}))
        publisher = _publishers.setdefault(pid, _native.Publisher(options))
    return publisher
