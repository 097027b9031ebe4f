"""Publish to streams from anywhere in a project: views, signals, commands, tasks.

All threads and event loops of a process share one connection to each NATS system, opened on first
use; a forked process opens its own."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from nats_consumer.api import PubAck
from nats_consumer.exceptions import NotAllStored
from nats_consumer.lanes.blocking import on_event_loop
from nats_consumer.settings import DEFAULT_CONNECTION
from nats_consumer.templates import TokenValue

from . import on_commit
from .drafts import (
    OWN,
    MsgId,
    Outgoing,
    checked_timeout,
    draft_of,
    key_of,
    make_draft,
    make_drafts,
)
from .middleware import around, around_all
from .publisher import Publisher, current_publisher, is_open
from .times import At, Ttl

if TYPE_CHECKING:
    from nats_consumer._native import Msg

__all__ = [
    "Outgoing",
    "apublish",
    "apublish_many",
    "arequest",
    "publish",
    "publish_many",
    "publish_many_on_commit",
    "publish_on_commit",
    "request",
]

logger = logging.getLogger("nats_consumer.publish")

_DEFAULT_TIMEOUT = 5.0

# The last of them is an event.
Publishable: TypeAlias = Outgoing | tuple[str | type, Any] | Any


@overload
def publish(
    subject: str | type,
    data: Any,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    at: At | None = None,
    ttl: Ttl | None = None,
    timeout: float = ...,
    using: str = ...,
    **values: TokenValue,
) -> PubAck: ...
@overload
def publish(
    subject: object,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    at: At | None = None,
    ttl: Ttl | None = None,
    timeout: float = ...,
    using: str = ...,
    **values: TokenValue,
) -> PubAck: ...
def publish(
    subject: Any,
    data: Any = OWN,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    at: At | None = None,
    ttl: Ttl | None = None,
    timeout: float = _DEFAULT_TIMEOUT,
    using: str = DEFAULT_CONNECTION,
    **values: TokenValue,
) -> PubAck:
    """Publish `data` and wait, at most `timeout` seconds, until a stream has stored it.

    Bytes and text are sent as they are, anything else as JSON, with what Django's encoder knows
    (dates, decimals, UUIDs). Of messages with the same `msg_id` (text, or an int or UUID, which
    become text), the stream stores one within its duplicate window.

    An object of a class with a type of its own is encoded by it: a dataclass, a class of msgspec or
    pydantic, or what has __nats_encode__(). An event of @event has its subject with it:
    `publish(OrderPaid(id=7))`, or `publish(OrderPaid, {"id": 7})` for a TypedDict.

    `values` are for names in the subject: `publish("orders.{id}.paid", data, id=7)`. A value is
    one token of it: text, an int, a UUID, a date or an Enum of them.

    With `at`, an aware datetime or a timedelta from now, the server keeps the message and publishes
    it then. With `ttl`, in seconds or a timedelta, the stream deletes it after that time, rounded
    up to whole seconds. Both need settings of the stream, and errors name them.

    `using` is the alias of the connection to publish to, a key of NATS_CONSUMER["connections"].

    Raises a PublishError (NoStreamResponse, NotStored if the stream refuses it, PublishTimeout,
    PayloadTooLarge, InvalidMessage or Unserializable), Unreachable or ConfigurationError. While
    disconnected it raises within a second. TypeError and ValueError name an argument that is wrong.

    On an event loop, use apublish(): this one blocks the loop, and warns about that once."""
    if on_event_loop():
        _recommend_async()
    draft = make_draft(subject, data, headers, msg_id, values, at, ttl)
    limit = checked_timeout(timeout)
    with around([draft], using) as (sent,):
        return current_publisher(using).publish(sent, limit)


@overload
async def apublish(
    subject: str | type,
    data: Any,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    at: At | None = None,
    ttl: Ttl | None = None,
    timeout: float = ...,  # noqa: ASYNC109
    using: str = ...,
    **values: TokenValue,
) -> PubAck: ...
@overload
async def apublish(
    subject: object,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    at: At | None = None,
    ttl: Ttl | None = None,
    timeout: float = ...,  # noqa: ASYNC109
    using: str = ...,
    **values: TokenValue,
) -> PubAck: ...
async def apublish(
    subject: Any,
    data: Any = OWN,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    at: At | None = None,
    ttl: Ttl | None = None,
    timeout: float = _DEFAULT_TIMEOUT,  # noqa: ASYNC109 - it ends the engine's work too
    using: str = DEFAULT_CONNECTION,
    **values: TokenValue,
) -> PubAck:
    """publish() for async code."""
    draft = make_draft(subject, data, headers, msg_id, values, at, ttl)
    limit = checked_timeout(timeout)
    with around([draft], using) as (sent,):
        return await (await _publisher(using)).apublish(sent, limit)


def publish_many(
    messages: Iterable[Publishable],
    *,
    timeout: float = _DEFAULT_TIMEOUT,
    using: str = DEFAULT_CONNECTION,
) -> list[PubAck]:
    """Publish messages in their order without waiting for each, and return their confirmations.
    Far faster than publish() in a loop. A message is a (subject, data) pair, an event, or
    an Outgoing with headers, a message id or a time.

    All messages together have `timeout` seconds. Raises NotAllStored if some were not stored: an
    ExceptionGroup of the errors, which says which messages were stored and which were not. If one
    message cannot be sent at all, its error is raised and none is sent.

    On an event loop, use apublish_many(): this one blocks the loop, and warns about that once."""
    if on_event_loop():
        _recommend_async()
    drafts, limit = make_drafts(messages), checked_timeout(timeout)
    with around_all(drafts, using) as sent:
        return _all_stored(*current_publisher(using).publish_many(sent, limit))


async def apublish_many(
    messages: Iterable[Publishable],
    *,
    timeout: float = _DEFAULT_TIMEOUT,  # noqa: ASYNC109 - it ends the engine's work too
    using: str = DEFAULT_CONNECTION,
) -> list[PubAck]:
    """publish_many() for async code."""
    drafts, limit = make_drafts(messages), checked_timeout(timeout)
    with around_all(drafts, using) as sent:
        results = await asyncio.to_thread(
            lambda: current_publisher(using).publish_many(sent, limit)
        )
        return _all_stored(*results)


@overload
def publish_on_commit(
    subject: str | type,
    data: Any,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    at: At | None = None,
    ttl: Ttl | None = None,
    key: MsgId | None = None,
    timeout: float = ...,
    using: str | None = None,
    robust: bool = False,
    outbox: bool | None = None,
    connection: str = DEFAULT_CONNECTION,
    **values: TokenValue,
) -> None: ...
@overload
def publish_on_commit(
    subject: object,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    at: At | None = None,
    ttl: Ttl | None = None,
    key: MsgId | None = None,
    timeout: float = ...,
    using: str | None = None,
    robust: bool = False,
    outbox: bool | None = None,
    connection: str = DEFAULT_CONNECTION,
    **values: TokenValue,
) -> None: ...
def publish_on_commit(
    subject: Any,
    data: Any = OWN,
    *,
    headers: Mapping[str, str] | None = None,
    msg_id: MsgId | None = None,
    at: At | None = None,
    ttl: Ttl | None = None,
    key: MsgId | None = None,
    timeout: float = _DEFAULT_TIMEOUT,
    using: str | None = None,
    robust: bool = False,
    outbox: bool | None = None,
    connection: str = DEFAULT_CONNECTION,
    **values: TokenValue,
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
    committed, and other hooks of the commit do not run. With `robust`, Django logs the error
    instead. `outbox=True` raises ConfigurationError if the app is not installed.

    `connection` is the connection to publish to, which publish() calls `using`. The outbox
    publishes to "default" only, and raises ConfigurationError for another one."""
    draft = make_draft(subject, data, headers, msg_id, values, at, ttl)
    limit = checked_timeout(timeout)
    store = on_commit.outbox(outbox, connection)
    # Around this call, not the commit: the middleware sees where the message comes from.
    with around([draft], connection) as (kept,):
        if store is not None:
            store([(kept, key)], using)
        else:
            on_commit.publish_at_commit(kept, limit, using, robust, connection)


def publish_many_on_commit(
    messages: Iterable[Publishable],
    *,
    using: str | None = None,
    connection: str = DEFAULT_CONNECTION,
) -> None:
    """publish_on_commit() for many messages. With the outbox, that is one statement for every 100;
    without it, they are published one after the other."""
    drafts = [(draft_of(each), key_of(each)) for each in messages]
    store = on_commit.outbox(None, connection)
    with around([draft for draft, _ in drafts], connection) as kept:
        if store is not None:
            store([(draft, key) for draft, (_, key) in zip(kept, drafts, strict=True)], using)
            return
        for draft in kept:
            on_commit.publish_at_commit(draft, _DEFAULT_TIMEOUT, using, False, connection)


def request(
    subject: str,
    data: Any = b"",
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float = _DEFAULT_TIMEOUT,
    using: str = DEFAULT_CONNECTION,
    **values: TokenValue,
) -> "Msg":
    """Send `data` to a service that answers on `subject`, and return its answer. If several answer,
    the first one counts. No stream stores anything. `data`, `headers`, `using` and `values` are
    those of publish().

    Raises NoResponders at once if nobody subscribes to the subject, RequestTimeout if nobody has
    answered after `timeout` seconds, and otherwise as publish().

    On an event loop, use arequest(): this one blocks the loop, and warns about that once."""
    if on_event_loop():
        _recommend_async()
    draft = make_draft(subject, data, headers, None, values)
    return current_publisher(using).request(draft, checked_timeout(timeout))


async def arequest(
    subject: str,
    data: Any = b"",
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float = _DEFAULT_TIMEOUT,  # noqa: ASYNC109 - it ends the engine's work too
    using: str = DEFAULT_CONNECTION,
    **values: TokenValue,
) -> "Msg":
    """request() for async code."""
    draft = make_draft(subject, data, headers, None, values)
    limit = checked_timeout(timeout)
    return await (await _publisher(using)).arequest(draft, limit)


async def _publisher(using: str) -> Publisher:
    """The publisher of this process for a connection. The first call is made in a thread, because
    it may start the embedded server."""
    if is_open(using):
        return current_publisher(using)
    return await asyncio.to_thread(current_publisher, using)


def _all_stored(stored: list[PubAck], failed: list[tuple[int, Exception]]) -> list[PubAck]:
    """The confirmations. Raises NotAllStored if some were not stored."""
    if failed:
        errors = dict(failed)
        numbers = (each for each in range(len(stored) + len(failed)) if each not in errors)
        raise NotAllStored(errors, dict(zip(numbers, stored, strict=True)))
    return stored


@cache
def _recommend_async() -> None:
    """Warn of it, the first time."""
    logger.warning(
        "publish(), publish_many() or request() was called on an event loop and blocks it until "
        "the server answers. Use `await apublish(...)`, `await apublish_many(...)` or "
        "`await arequest(...)` instead."
    )
