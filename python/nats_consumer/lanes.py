"""The two lanes in which a project's code runs: the event loop, and threads of our own. A call can
cross from either to the other."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from asgiref.sync import iscoroutinefunction

from .database import close_connections, fresh_connections


class _Lane(threading.local):
    loop: asyncio.AbstractEventLoop | None = None


_lane = _Lane()


def enter_thread_lane(loop: asyncio.AbstractEventLoop) -> None:
    """Mark this thread as one that runs plain `def` code for the consumers of `loop`."""
    _lane.loop = loop


def in_thread_lane() -> bool:
    """Whether this is such a thread."""
    return _lane.loop is not None


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function`, `async def` or `def`, from either lane. On the event loop the answer is an
    awaitable; in a thread lane it is the result."""
    if in_thread_lane():
        return finish(function(*args, **kwargs))
    if iscoroutinefunction(function):
        return function(*args, **kwargs)
    return _in_thread(function, *args, **kwargs)


def finish(result: Any) -> Any:
    """In a thread lane: wait for `result` on the event loop if it is awaitable."""
    if not isawaitable(result) or _lane.loop is None:
        return result
    return asyncio.run_coroutine_threadsafe(_wait_for(result), _lane.loop).result()


async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    loop = asyncio.get_running_loop()
    return await asyncio.to_thread(_detour, loop, function, *args, **kwargs)


def _detour(
    loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    enter_thread_lane(loop)
    try:
        with fresh_connections():
            return finish(function(*args, **kwargs))
    finally:
        # The thread goes back to the loop's pool, where others use it.
        close_connections()
        _lane.loop = None
