"""The asyncio Tasks in which `async def` handlers run."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any
from weakref import ref

from .own_thread import OwnThread

if TYPE_CHECKING:
    from nats_consumer._native import Message


class PoolTask(asyncio.Task[None]):
    """A Task whose coroutine is a lane of the engine.

    A handler may treat it as a Task of its own: cancel it, wait for its end, name it. The next
    handler must not see that, so the Task ends after the delivery and another one takes its
    place."""

    def __init__(self, lane: Any, *, loop: asyncio.AbstractEventLoop) -> None:
        own = ref(self)

        def call_at_end(function: Callable[[], None]) -> bool:
            task = own()
            running: Any = None if task is None else task.get_coro()
            return running is not None and bool(running.at_end(function))

        self.own_thread = OwnThread(call_at_end)
        super().__init__(lane, loop=loop, context=self.own_thread.context())

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the handler that runs."""
        self._use_up()
        return super().cancel(msg)

    def add_done_callback(
        self, fn: Callable[[Any], object], /, *, context: Context | None = None
    ) -> None:
        """Call `fn` when the handler that runs has ended."""
        self._use_up()
        super().add_done_callback(fn, context=context)

    def set_name(self, value: object, /) -> None:
        """Name the Task until the handler that runs has ended."""
        self._use_up()
        super().set_name(value)

    def stepped(self) -> "tuple[str, Message | None]":
        """The consumer, and the message whose handler runs at this moment."""
        lane: Any = self.get_coro()
        stepped: tuple[str, Message | None] = lane.stepped
        return stepped

    def _use_up(self) -> None:
        lane: Any = self.get_coro()
        lane.use_up()


class BatchTask(asyncio.Task[None]):
    """A Task that handles one batch. Its coroutine calls leave_thread() after each call of the
    handler."""

    def __init__(self, coroutine: Any, *, about: "tuple[str, Message]", **options: Any) -> None:
        """`about` is the consumer, and the first message."""
        self.own_thread = OwnThread(lambda _: True)
        super().__init__(coroutine, context=self.own_thread.context(), **options)
        self._about = about

    def stepped(self) -> "tuple[str, Message | None]":
        """The consumer, and a message whose handler runs at this moment."""
        return self._about
