"""Messages of a consumer, fetched by hand."""
# ruff: noqa: ASYNC109 - the parameters are those of nats-py

import asyncio
import sys
from typing import TYPE_CHECKING

from nats_consumer.api import ConsumerInfo
from nats_consumer.exceptions import FetchTimeout, RequestTimeout, SubscriptionEnded

from .durables import Durables

if TYPE_CHECKING:
    from nats_consumer._native import Msg, Pull


class PullSubscription:
    """A consumer to fetch from; made by jetstream.pull_subscribe()."""

    def __init__(self, native: "Pull", durables: Durables, stream: str, consumer: str) -> None:
        self._native = native
        self._durables = durables
        self._stream = stream
        self._consumer = consumer

    async def fetch(
        self, batch: int = 1, timeout: float | None = 5.0, heartbeat: float | None = None
    ) -> list["Msg"]:
        """Up to `batch` messages: those that are there now, or else those that come within
        `timeout` seconds; None: no limit. The server says every `heartbeat` seconds that it is
        alive. Acknowledge each.

        Raises FetchTimeout when there was none, ConsumerGone, ApiError, Disconnected,
        ConnectionClosed or, after unsubscribe(), SubscriptionEnded."""
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}.")
        if timeout is not None and timeout <= 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout}.")
        clock = asyncio.get_running_loop().time
        deadline = None if timeout is None else clock() + timeout
        while True:
            left = None if deadline is None else max(deadline - clock(), 0.001)
            await self._ready(batch, left, heartbeat)
            # Another fetch of the same subscription may have been faster.
            if messages := self._native.take(batch):
                return messages

    async def consumer_info(self) -> ConsumerInfo:
        """How the consumer is configured and how far it is."""
        return await self._durables.consumer_info(self._stream, self._consumer)

    async def unsubscribe(self) -> None:
        """End the subscription; the consumer stays. What has come and was not fetched is delivered
        again after `ack_wait`."""
        if self._native.has_ended:
            raise SubscriptionEnded
        self._native.unsubscribe()
        self._native.take(sys.maxsize)

    @property
    def pending_msgs(self) -> int:
        """How many messages have come for a fetch that was cancelled; the next one gets them."""
        return self._native.pending[0]

    @property
    def pending_bytes(self) -> int:
        """Their bytes."""
        return self._native.pending[1]

    @property
    def delivered(self) -> int:
        """How many messages have come so far."""
        return self._native.received

    async def _ready(self, batch: int, timeout: float | None, heartbeat: float | None) -> None:
        if self._native.has_ended and not self._native.pending[0]:
            raise SubscriptionEnded
        try:
            await self._native.fetch(batch, timeout, heartbeat)
        except RequestTimeout as error:
            raise FetchTimeout(*error.args) from None
