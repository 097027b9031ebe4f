"""Calls from the event loop into threads, and back."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from nats_consumer import lanes
from tests.waiting import becomes_true, eventually


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


@contextmanager
def threads(count: int) -> Iterator[lanes.Threads]:
    made = lanes.Threads("Calling", count)
    with made.in_use():
        yield made
    made.end()
    eventually(lambda: not made.alive())


def test_as_many_blocking_calls_run_at_once_as_the_lane_has_threads() -> None:
    together = threading.Barrier(20)  # more than the loop's own pool has on a small machine

    def meet() -> str:
        together.wait(timeout=5)
        return where()

    async def run() -> list[str]:
        with threads(20):
            return await asyncio.gather(*(lanes.call(meet) for _ in range(20)))

    assert set(asyncio.run(run())) == {f"Calling-{number}" for number in range(1, 21)}


def test_calls_that_find_no_free_thread_wait_for_one() -> None:
    async def run() -> list[str]:
        with threads(2):
            return await asyncio.gather(*(lanes.call(where) for _ in range(50)))

    assert set(asyncio.run(run())) <= {"Calling-1", "Calling-2"}


def test_a_thread_is_used_again_before_another_is_started() -> None:
    async def run() -> set[str]:
        with threads(5) as made:
            names = set()
            for _ in range(20):
                names.add(await lanes.call(where))
                await becomes_true(lambda: made._idle._value)
            return names

    assert asyncio.run(run()) == {"Calling-1"}


def test_a_blocking_call_in_a_lane_may_call_back_into_the_loop_and_fail() -> None:
    async def fail() -> None:
        raise LookupError(where())

    async def run() -> None:
        with threads(1):
            await lanes.call(lambda: lanes.call(fail))

    with pytest.raises(LookupError, match="MainThread"):
        asyncio.run(run())


def test_a_call_that_no_thread_begins_because_ended_handlers_hold_all_says_so() -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()
    told: list[int] = []

    def hang() -> None:
        begun.release()
        go_on.wait(timeout=30)

    async def given_up(function: Callable[[], Any], condition: Callable[[], Any]) -> BaseException:
        call = asyncio.create_task(lanes.call(function))
        await becomes_true(condition)
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        return caught.value

    async def run() -> None:
        made = lanes.Threads("Calling", 2, lambda held: partial(told.append, len(held)))
        with made.in_use():
            for _ in range(2):
                error = await given_up(hang, lambda: begun.acquire(blocking=False))
                assert lanes.not_started(error) is None
            assert told == [2]
            error = await given_up(where, lambda: made._calls.qsize())
            assert lanes.not_started(TimeoutError()) is None
            assert lanes.not_started(error) is not None
            go_on.set()
            await becomes_true(lambda: told == [2, 0])
            assert (await lanes.call(where)).startswith("Calling-")
        made.end()
        await becomes_true(lambda: not made.alive())

    asyncio.run(run())


def test_a_call_that_comes_after_the_end_of_its_lane_is_still_made() -> None:
    async def run() -> str:
        made = lanes.Threads("Calling", 1)
        with made.in_use():
            await lanes.call(where)
            made.end()
            return await lanes.call(where)

    assert not asyncio.run(run()).startswith("Calling")
