"""Calls from the event loop into threads, and back."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from nats_consumer import lanes


async def where_async() -> str:
    return threading.current_thread().name


def where() -> str:
    return threading.current_thread().name


def in_lane(function: Callable[[], Any]) -> Any:
    """Run `function` in a thread lane beside a running loop."""

    answer: Future[Any] = Future()

    def body(loop: asyncio.AbstractEventLoop) -> None:
        lanes.enter_thread_lane(loop)
        try:
            answer.set_result(function())
        except Exception as error:
            answer.set_exception(error)

    async def run() -> Any:
        loop = asyncio.get_running_loop()
        threading.Thread(target=body, args=(loop,), name="lane-1").start()
        return await asyncio.wrap_future(answer)

    return asyncio.run(run())


async def on_loop(function: Callable[..., Any]) -> Any:
    return await lanes.call(function)


def test_on_the_loop_an_async_function_stays_there() -> None:
    assert asyncio.run(on_loop(where_async)) == "MainThread"


def test_on_the_loop_a_blocking_function_moves_to_a_thread() -> None:
    assert asyncio.run(on_loop(where)) != "MainThread"


def test_in_a_thread_an_async_function_runs_on_the_loop() -> None:
    assert in_lane(lambda: lanes.call(where_async)) == "MainThread"


def test_in_a_thread_a_blocking_function_stays_there() -> None:
    assert in_lane(lambda: lanes.call(where)) == "lane-1"


def test_a_blocking_function_may_return_an_awaitable() -> None:
    assert asyncio.run(on_loop(lambda: where_async())) == "MainThread"


def test_an_error_crosses_the_lanes() -> None:
    async def fail() -> None:
        raise LookupError("here")

    with pytest.raises(LookupError, match="here"):
        in_lane(lambda: lanes.call(fail))
