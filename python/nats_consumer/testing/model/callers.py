"""Two ways to call a project's code: from the thread of a test, and from its event loop."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async

from nats_consumer.testing.deliver import in_time, in_time_here
from nats_consumer.testing.message import FakeMessage

_Value = TypeVar("_Value")


class Caller(Protocol):
    """Calls code, `async def` or `def`."""

    async def handle(
        self,
        limit: float | None,
        handler: Callable[..., Any],
        message: FakeMessage,
        timed_out: Callable[[], TimeoutError],
    ) -> Any:
        """Call a handler, as in_time() does."""

    async def wait(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Call an `async def`."""

    async def block(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a `def` in the thread of the test."""


class InThread:
    """Calls from the thread of a test. Its methods never suspend, so no event loop is needed for
    handlers that are plain `def`: a thread is not left for each message."""

    async def handle(
        self,
        limit: float | None,
        handler: Callable[..., Any],
        message: FakeMessage,
        timed_out: Callable[[], TimeoutError],
    ) -> Any:
        """Call a handler, as in_time() does."""
        if iscoroutinefunction(handler):
            return async_to_sync(in_time)(limit, handler, message, timed_out)
        return in_time_here(limit, handler, message, timed_out)

    async def wait(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Call an `async def`."""
        return async_to_sync(function)(*args)

    async def block(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a `def`."""
        return function(*args)


class OnLoop:
    """Calls from the event loop of a test."""

    async def handle(
        self,
        limit: float | None,
        handler: Callable[..., Any],
        message: FakeMessage,
        timed_out: Callable[[], TimeoutError],
    ) -> Any:
        """Call a handler, as in_time() does."""
        return await in_time(limit, handler, message, timed_out)

    async def wait(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Call an `async def`."""
        return await function(*args)

    async def block(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a `def` in the thread of the test."""
        return await sync_to_async(function)(*args)


def finish(coroutine: Coroutine[Any, Any, _Value]) -> _Value:
    """The result of a coroutine that calls with InThread, and so never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: _Value = done.value
        return value
    coroutine.close()
    raise RuntimeError("The test kit needs an event loop, and none is running.")
