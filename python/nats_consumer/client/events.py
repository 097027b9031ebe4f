"""Events of a client's connection, passed to its callbacks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from nats_consumer.connect.callbacks import Callbacks
from nats_consumer.exceptions import Denied, NatsConsumerError, SlowConsumer
from nats_consumer.terminal import visible

if TYPE_CHECKING:
    from nats_consumer._native import Events

logger = logging.getLogger("nats_consumer.connection")

_REFUSALS = ("permissions violation", "authorization", "authentication", "user ")


class Listener:
    """Listens to a connection until it is closed, and calls the callbacks."""

    def __init__(self, callbacks: Callbacks | None = None) -> None:
        self._callbacks = callbacks or Callbacks()
        self._task: asyncio.Task[None] | None = None
        self._is_up = True
        self.last_error: Exception | None = None
        self.errors_received = 0

    def start(self, events: "Events") -> None:
        """Listen in the running event loop."""
        # The task knows neither the client nor its connection: a client that is dropped is closed.
        self._task = asyncio.create_task(self._listen(events))

    async def finished(self) -> None:
        """Wait until the last callback has returned; at once when one of them asks."""
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait([self._task])

    async def report(self, error: Exception) -> None:
        """Tell of an error that nobody waits for: to `error_cb`, or to the log."""
        self.last_error = error
        self.errors_received += 1
        if self._callbacks.error_cb is None:
            logger.warning("%s", visible(str(error)), exc_info=error)
            return
        try:
            await self._callbacks.error_cb(error)
        except Exception:
            logger.exception("error_cb failed.")

    async def _listen(self, events: "Events") -> None:
        while True:
            what, text = await events.next()
            match what:
                case "error":
                    await self.report(_error(text))
                case "slow_consumer":
                    await self.report(_slow(text))
                case "closed":
                    await self._lost()
                    await self._call(self._callbacks.closed_cb)
                    return
                case "disconnected":
                    await self._lost()
                case "reconnected":
                    self._is_up = True
                    await self._call(self._callbacks.reconnected_cb)
                case "lame_duck":
                    await self._call(self._callbacks.lame_duck_mode_cb)

    async def _lost(self) -> None:
        if self._is_up:
            self._is_up = False
            await self._call(self._callbacks.disconnected_cb)

    async def _call(self, callback: Callable[[], Awaitable[Any]] | None) -> None:
        if callback is None:
            return
        try:
            await callback()
        except Exception as error:
            await self.report(error)


def _error(text: str) -> NatsConsumerError:
    refused = any(word in text.lower() for word in _REFUSALS)
    return Denied(text) if refused else NatsConsumerError(text)


def _slow(subject: str) -> SlowConsumer:
    error = SlowConsumer(
        f"The subscription to {subject!r} is full, and new messages were dropped. Take messages "
        "faster, or raise pending_msgs_limit and pending_bytes_limit."
    )
    error.subject = subject
    return error
