"""Subscriptions to subjects: messages to take one by one, to iterate over, or for a callback."""
# ruff: noqa: ASYNC109 - the parameters are those of nats-py

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nats_consumer.connect.callbacks import is_coroutine_function
from nats_consumer.exceptions import (
    ConnectionClosed,
    InvalidCallback,
    NatsConsumerError,
    SubscriptionEnded,
)

from .events import Listener

if TYPE_CHECKING:
    from nats_consumer._native import Connection, Msg
    from nats_consumer._native import Subscription as Native

Callback = Callable[["Msg"], Awaitable[Any]]

# Messages taken from the engine at once; between two batches the event loop gets its turn.
_BATCH = 128


class Limits(NamedTuple):
    """How much may wait in a subscription; what comes then is dropped."""

    messages: int
    bytes: int

    @classmethod
    def of(cls, messages: int, size: int) -> "Limits":
        """Limits as nats-py takes them: without limit from 0 down."""
        return cls(*(limit if limit > 0 else sys.maxsize for limit in (messages, size)))


def check_callback(callback: object) -> None:
    """Raises InvalidCallback if a callback is given that is not a coroutine function."""
    if callback is not None and not is_coroutine_function(callback):
        raise InvalidCallback(f"cb must be a coroutine function, not {callback!r}.")


class Subscription:
    """An open subscription; made by client.subscribe()."""

    def __init__(
        self,
        native: "Native",
        connection: "Connection",
        listener: Listener,
        *,
        subject: str,
        queue: str = "",
        callback: Callback | None = None,
    ) -> None:
        self._native = native
        self._connection = connection
        self._listener = listener
        self._subject = subject
        self._queue = queue
        self._callback = callback
        self._taken: deque[Msg] = deque()
        self._is_given_up = False
        self._has_limit = False
        self._task = asyncio.create_task(self._deliver(callback)) if callback else None

    @property
    def subject(self) -> str:
        """The subject it was made for."""
        return self._subject

    @property
    def queue(self) -> str:
        """The queue group, or an empty text."""
        return self._queue

    @property
    def sid(self) -> int:
        """Its number among the subscriptions of its client, which its messages have too."""
        return self._native.sid

    @property
    def has_ended(self) -> bool:
        """Whether the subscription has ended; messages that arrived before may still wait."""
        return self._native.has_ended

    @property
    def pending_msgs(self) -> int:
        """How many messages wait to be taken."""
        return self._native.pending[0] + len(self._taken)

    @property
    def pending_bytes(self) -> int:
        """How many bytes of payloads wait to be taken."""
        return self._native.pending[1] + sum(len(message.data) for message in self._taken)

    @property
    def delivered(self) -> int:
        """How many messages have come so far."""
        return self._native.received

    @property
    def messages(self) -> AsyncIterator["Msg"]:
        """The messages, to iterate over with `async for`, until the subscription ends."""
        self._refuse_with_callback("messages")
        return self._iterate()

    async def next_msg(self, timeout: float | None = 1.0) -> "Msg":
        """The next message. Raises RequestTimeout when none came within `timeout` seconds (None
        waits without limit), SubscriptionEnded or ConnectionClosed when none will come."""
        self._refuse_with_callback("next_msg()")
        message = await self._next(timeout)
        if message is not None:
            return message
        raise SubscriptionEnded if self._is_given_up else ConnectionClosed

    async def unsubscribe(self, limit: int = 0) -> None:
        """End the subscription, at once, leaving what was not taken; or, with a `limit`, after so
        many messages since it was made. Raises SubscriptionEnded and ConnectionClosed."""
        # One that its limit has ended can be given up still: who takes messages cannot know.
        if not self._has_limit or self._connection.is_closed:
            self._refuse_ended()
        self._has_limit = bool(limit)
        self._is_given_up = True
        self._native.unsubscribe(limit or None)
        if not limit:
            self._taken.clear()
            self._native.take(sys.maxsize)
            if self._task is not None and self._task is not asyncio.current_task():
                self._task.cancel()

    async def drain(self) -> None:
        """Let nothing new come. Waits until the callback has had all that came before; without a
        callback, that can still be taken. Raises SubscriptionEnded and ConnectionClosed."""
        self._refuse_ended()
        self._is_given_up = True
        self._native.drain()
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait([self._task])

    async def _iterate(self) -> AsyncIterator["Msg"]:
        while (message := await self._next(None)) is not None:
            yield message

    async def _next(self, timeout: float | None) -> "Msg | None":
        """The next message, or None when there will be none."""
        while not self._taken:
            self._taken.extend(self._native.take(_BATCH))
            if self._taken:
                break
            if self._native.failure is not None:
                raise self._native.failure
            if self._native.has_ended:
                return None
            await self._native.ready(timeout)
        return self._taken.popleft()

    async def _deliver(self, callback: Callback) -> None:
        while True:
            messages = self._native.take(_BATCH)
            if not messages and self._native.has_ended:
                if self._native.failure is not None:
                    await self._listener.report(self._native.failure)
                return
            if not messages:
                await self._native.ready()
            for message in messages:
                await self._handle(callback, message)
            await asyncio.sleep(0)

    async def _handle(self, callback: Callback, message: "Msg") -> None:
        try:
            await callback(message)
        except Exception as error:
            await self._listener.report(error)

    def _refuse_with_callback(self, what: str) -> None:
        if self._callback is not None:
            raise NatsConsumerError(
                f"{what} is not for a subscription with a callback, which gets all messages."
            )

    def _refuse_ended(self) -> None:
        if self._connection.is_closed:
            raise ConnectionClosed
        if self._native.has_ended:
            raise SubscriptionEnded if self._is_given_up else ConnectionClosed


Kind = TypeVar("Kind", bound=Subscription)
