"""JetStream over one connection: publishing, streams, consumers, subscriptions."""
# ruff: noqa: ASYNC109 - the parameters are those of nats-py

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nats_consumer.api import Header, PubAck
from nats_consumer.client.outgoing import checked_headers, checked_payload
from nats_consumer.exceptions import TooManyUnconfirmed
from nats_consumer.settings import DEFAULT_CONNECTION

from .stored import Stored
from .subscriptions import OpenSubscription, Subscriptions

if TYPE_CHECKING:
    from nats_consumer._native import Connection

_MOST_UNCONFIRMED = 4000


class JetStreamContext(Subscriptions, Stored):
    """JetStream of a client, as `client.jetstream()` returns it.

    `timeout` is in seconds, for each request. `domain` names the JetStream of a leaf node. `prefix`
    replaces the prefix of the API's subjects. Both default to those of the connection. `using` is
    the alias of the connection in the settings."""

    def __init__(
        self,
        connection: "Connection",
        *,
        open_subscription: OpenSubscription,
        prefix: str | None = None,
        domain: str | None = None,
        timeout: float = 5.0,
        publish_async_max_pending: int = _MOST_UNCONFIRMED,
        using: str = DEFAULT_CONNECTION,
    ) -> None:
        super().__init__(
            connection,
            prefix=f"$JS.{domain}.API" if domain else prefix or connection.api_prefix,
            timeout=timeout,
        )
        self._open = open_subscription
        self.using = using
        self._places = asyncio.Semaphore(publish_async_max_pending)
        self._unconfirmed: set[asyncio.Future[PubAck]] = set()

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float | None = None,
        stream: str | None = None,
        headers: Mapping[str, str] | None = None,
        msg_ttl: float | None = None,
    ) -> PubAck:
        """Store a message and wait until the server confirms it. With a `Nats-Msg-Id` header, a
        repeat is stored once. `stream` is the one you expect it in; after `msg_ttl` seconds the
        message is deleted, where the stream allows that. Raises NoStreamResponse, PublishTimeout,
        PayloadTooLarge, InvalidMessage, TypeError for headers that are not text, or ApiError if the
        stream refuses it."""
        return await self._connection.publish_stream(
            subject,
            checked_payload(payload),
            timeout or self._timeout,
            _lines(headers, stream, msg_ttl),
        )

    async def publish_async(
        self,
        subject: str,
        payload: bytes = b"",
        wait_stall: float | None = None,
        stream: str | None = None,
        headers: Mapping[str, str] | None = None,
        msg_ttl: float | None = None,
    ) -> asyncio.Future[PubAck]:
        """Send a message and return a future of its confirmation, which raises what publish()
        raises. Messages are stored in the order of the calls. When as many as
        `publish_async_max_pending` are not confirmed, it waits for a place, at most `wait_stall`
        seconds; then it raises TooManyUnconfirmed."""
        try:
            await asyncio.wait_for(self._places.acquire(), wait_stall)
        except TimeoutError:
            raise TooManyUnconfirmed from None
        sent = asyncio.ensure_future(
            self.publish(subject, payload, stream=stream, headers=headers, msg_ttl=msg_ttl)
        )
        self._unconfirmed.add(sent)
        sent.add_done_callback(self._confirmed)
        return sent

    def publish_async_pending(self) -> int:
        """How many messages of publish_async() are not confirmed."""
        return len(self._unconfirmed)

    async def publish_async_completed(self) -> None:
        """Wait until every message of publish_async() is confirmed or has failed."""
        while self._unconfirmed:
            await asyncio.wait(self._unconfirmed)

    def _confirmed(self, sent: asyncio.Future[PubAck]) -> None:
        self._unconfirmed.discard(sent)
        self._places.release()


def _lines(
    headers: Mapping[str, str] | None, stream: str | None, msg_ttl: float | None
) -> dict[str, str] | None:
    lines = checked_headers(headers) if headers else {}
    if stream:
        lines[Header.EXPECTED_STREAM] = stream
    if msg_ttl is not None:
        lines[Header.MSG_TTL] = str(int(msg_ttl))
    return lines or None
