"""Coroutines from plain `def` code, also where an event loop runs already."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")


def on_event_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def wait_for(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run the coroutine to its end and return its result. It gets an event loop of its own: where
    one runs in this thread (a notebook, an async test), that one waits meanwhile."""
    if not on_event_loop():
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
