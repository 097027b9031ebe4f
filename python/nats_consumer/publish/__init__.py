"""Publish to streams from anywhere in a project: views, signals, commands, tasks.

All threads and event loops of a process share one connection, opened on first use; a forked process
opens its own."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from nats_consumer.api import PubAck
from nats_consumer.exceptions import NotAllStored
from nats_consumer.lanes.blocking import on_event_loop

from . import on_commit
from .drafts import (
    MsgId,
    Outgoing,
    checked_timeout,
    draft_of,
    key_of,
    make_draft,
    make_drafts,
)
from .publisher import current_publisher, is_open

__all__ = [
    "Outgoing",
    "apublish",
    "apublish_many",
    "publish",
    "publish_many",
    "publish_many_on_commit",
    "publish_on_commit",
]

logger = logging.getLogger("nats_consumer.publish")

_DEFAULT_TIMEOUT = 5.0


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
    become text), the stream stores one within its duplicate window. Raises a PublishError
    (NoStreamResponse, NotStored where the stream refuses it, PublishTimeout, PayloadTooLarge,
    InvalidMessage or Unserializable), Unreachable or ConfigurationError; while disconnected it
    raises soon rather than wait. TypeError and ValueError name an argument that is wrong.

    On an event loop, use apublish(): this one holds the loop up, and warns of it once."""
    if on_event_loop():
        _recommend_apublish()
    draft = make_draft(subject, data, headers, msg_id)
    return current_publisher().publish(draft, checked_timeout(timeout))


async def apublish(
    subject: str,
    data: Any,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    timeout: float = _DEFAULT_TIMEOUT,  # noqa: ASYNC109 - it ends the engine's work too
) -> PubAck:
    """publish() for async code."""
    draft = make_draft(subject, data, headers, msg_id)
    # In a thread, because the first call may start the embedded server.
    limit = checked_timeout(timeout)
    publisher = current_publisher() if is_open() else await asyncio.to_thread(current_publisher)
    return await publisher.apublish(draft, limit)


def publish_many(
    messages: Iterable[Outgoing | tuple[str, Any]], *, timeout: float = _DEFAULT_TIMEOUT
) -> list[PubAck]:
    """Publish messages in their order without waiting for each, and return their confirmations.
    Far faster than publish() in a loop. A message is a (subject, data) pair, or an Outgoing where
    it has headers or a message id.

    They have `timeout` seconds all together. Raises NotAllStored, an ExceptionGroup of what
    publish() raises, if some were not stored; the others were, and it says which are which. If one
    cannot be sent at all, that is raised and none is sent.

    On an event loop, use apublish_many(): this one holds the loop up, and warns of it once."""
    if on_event_loop():
        _recommend_apublish()
    drafts, limit = make_drafts(messages), checked_timeout(timeout)
    return _all_stored(*current_publisher().publish_many(drafts, limit))


async def apublish_many(
    messages: Iterable[Outgoing | tuple[str, Any]],
    *,
    timeout: float = _DEFAULT_TIMEOUT,  # noqa: ASYNC109 - it ends the engine's work too
) -> list[PubAck]:
    """publish_many() for async code."""
    drafts, limit = make_drafts(messages), checked_timeout(timeout)
    results = await asyncio.to_thread(lambda: current_publisher().publish_many(drafts, limit))
    return _all_stored(*results)


def publish_on_commit(
    subject: str,
    data: Any,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    key: str | None = None,
    timeout: float = _DEFAULT_TIMEOUT,
    using: str | None = None,
    robust: bool = False,
    outbox: bool | None = None,
) -> None:
    """publish() when the current transaction of the database `using` commits, at once if there is
    none; never if it is rolled back. The data is encoded now, so that later changes to it are not
    published.

    With the app nats_consumer.contrib.outbox, the message becomes a row in that transaction, and a
    relay publishes it: it cannot be lost. Messages with the same `key`, which is the subject if you
    give none, are published in the order of their rows. Raises OutboxError if the row would commit
    apart from your data. `timeout` and `robust` have no effect then.

    Without it, or with `outbox=False`, the message is lost if the process dies between the commit
    and the publishing. Errors of publish() come out of the `atomic` block although the data is
    committed, and what else waits for the commit does not run; with `robust`, Django logs the error
    instead. `outbox=True` raises ConfigurationError where the app is not installed."""
    draft, limit = make_draft(subject, data, headers, msg_id), checked_timeout(timeout)
    store = on_commit.outbox(outbox)
    if store is not None:
        store([(draft, key)], using)
    else:
        on_commit.publish_at_commit(draft, limit, using, robust)


def publish_many_on_commit(
    messages: Iterable[Outgoing | tuple[str, Any]], *, using: str | None = None
) -> None:
    """publish_on_commit() for many messages. With the outbox, that is one statement for every 100;
    without it, they are published one after the other."""
    drafts = [(draft_of(each), key_of(each)) for each in messages]
    store = on_commit.outbox(None)
    if store is not None:
        store(drafts, using)
        return
    for draft, _ in drafts:
        on_commit.publish_at_commit(draft, _DEFAULT_TIMEOUT, using, False)


def _all_stored(stored: list[PubAck], failed: list[tuple[int, Exception]]) -> list[PubAck]:
    """The confirmations. Raises NotAllStored if some were not stored."""
    if failed:
        errors = dict(failed)
        numbers = (each for each in range(len(stored) + len(failed)) if each not in errors)
        raise NotAllStored(errors, dict(zip(numbers, stored, strict=True)))
    return stored


@cache
def _recommend_apublish() -> None:
    """Warn of it, the first time."""
    logger.warning(
        "publish() or publish_many() was called on an event loop and blocks it until the stream "
        "confirms. Use `await apublish(...)` or `await apublish_many(...)` instead."
    )
