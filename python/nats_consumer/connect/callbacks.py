"""Callbacks for the events of a connection."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from nats_consumer.exceptions import InvalidCallback


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Coroutine functions that hear of what happens; all but `error_cb` without arguments.
    `discovered_server_cb` is never called: ask the client for its `discovered_servers`."""

    error_cb: Callable[[Exception], Awaitable[Any]] | None = None
    disconnected_cb: Callable[[], Awaitable[Any]] | None = None
    reconnected_cb: Callable[[], Awaitable[Any]] | None = None
    closed_cb: Callable[[], Awaitable[Any]] | None = None
    lame_duck_mode_cb: Callable[[], Awaitable[Any]] | None = None
    discovered_server_cb: Callable[[], Awaitable[Any]] | None = None

    def __post_init__(self) -> None:
        for name, callback in vars(self).items():
            if callback is not None and not is_coroutine_function(callback):
                raise InvalidCallback(f"{name} must be a coroutine function, not {callback!r}.")


def is_coroutine_function(callback: object) -> bool:
    """Whether calling it makes a coroutine: an `async def`, a partial of one, or an object whose
    `__call__` is one."""
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
        getattr(callback, "__call__", None)  # noqa: B004 - not whether, but how
    )
