"""Threads of `async def` handlers: one for each handler that needs one."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pytest_django import Settings

from nats_consumer.lanes import own_thread as module
from nats_consumer.lanes.evidence import is_without_evidence
from nats_consumer.lanes.own_thread import OwnThread, end_threads, leave_thread, own_thread
from nats_consumer.lanes.pool import BatchTask
from tests.waiting import becomes_true, eventually

Body = Callable[[], Coroutine[Any, Any, Any]]


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Threads of the test's own, without databases; all end with the test."""
    made = module._Threads()
    monkeypatch.setattr(module, "_threads", made)
    for name in ("refresh", "replace_broken", "close_connections", "close_old_connections"):
        monkeypatch.setattr(module, name, lambda: None)
    monkeypatch.setattr(module, "has_one_writer", lambda: False)
    yield made
    eventually(lambda: not end_threads())


async def handler(body: Body) -> Any:
    with own_thread():
        return await body()


@sync_to_async
def where() -> str:
    return threading.current_thread().name


async def twice() -> tuple[str, str]:
    return await where(), await where()


def test_handlers_that_run_at_once_have_a_thread_each() -> None:
    together = threading.Barrier(3)

    async def meet() -> str:
        await sync_to_async(together.wait)(timeout=30)
        return await where()

    async def run() -> list[str]:
        return await asyncio.gather(*(handler(meet) for _ in range(3)))

    assert len(set(asyncio.run(run()))) == 3


def test_a_handler_has_its_thread_until_it_ends() -> None:
    async def run() -> list[tuple[str, str]]:
        go_on = asyncio.Event()

        async def waiting() -> tuple[str, str]:
            first = await where()
            await go_on.wait()
            return first, await where()

        waits = asyncio.create_task(handler(waiting))
        await becomes_true(lambda: len(module._threads._all) == 1)
        quick = await handler(twice)
        go_on.set()
        return [await waits, quick]

    (first, second), (third, fourth) = asyncio.run(run())
    assert first == second
    assert third == fourth != first


def test_the_thread_that_was_free_last_serves_the_next_handler() -> None:
    async def run() -> set[str]:
        return {(await handler(twice))[0] for _ in range(20)}

    assert len(asyncio.run(run())) == 1


def test_no_thread_is_started_for_a_handler_that_needs_none(threads: Any) -> None:
    async def nothing() -> None:
        await asyncio.sleep(0)

    asyncio.run(handler(nothing))
    assert not threads._all


def test_handlers_share_threads_when_there_are_max_threads(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"max_threads": 2}

    async def run() -> set[str]:
        names = await asyncio.gather(*(handler(twice) for _ in range(10)))
        return {name for pair in names for name in pair}

    assert len(asyncio.run(run())) == 2


def test_handlers_share_one_thread_with_sqlite_as_django_sets_it_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "has_one_writer", lambda: True)

    async def run() -> set[tuple[str, str]]:
        return set(await asyncio.gather(*(handler(twice) for _ in range(10))))

    assert len(asyncio.run(run())) == 1


def test_a_thread_that_is_still_busy_is_not_given_to_the_next_handler() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        go_on.wait(timeout=30)

    async def run() -> tuple[str, str]:
        async def gives_up() -> str:
            name = await where()
            call = asyncio.create_task(sync_to_async(block)())
            await becomes_true(begun.is_set)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            leave_thread()
            assert await where() != name
            return name

        try:
            return await handler(gives_up), await handler(where)
        finally:
            go_on.set()

    stuck, other = asyncio.run(run())
    assert stuck != other


def test_a_thread_whose_call_outlived_its_handler_is_shared_last(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"max_threads": 2}
    begun, go_on = threading.Event(), threading.Event()

    def block() -> str:
        begun.set()
        go_on.wait(timeout=30)
        return threading.current_thread().name

    async def run() -> tuple[str, set[str]]:
        are_done = asyncio.Event()

        async def waits() -> str:
            name = await where()
            await are_done.wait()
            return name

        stuck = asyncio.create_task(handler(sync_to_async(block)))
        await becomes_true(begun.is_set)
        stuck.cancel()
        await asyncio.wait({stuck})
        holds = asyncio.create_task(handler(waits))
        try:
            async with asyncio.timeout(30):
                others = await asyncio.gather(*(handler(where) for _ in range(3)))
            are_done.set()
            return await holds, set(others)
        finally:
            go_on.set()

    holder, others = asyncio.run(run())
    assert others == {holder}


@pytest.mark.parametrize("who", ["another", "itself"])
def test_a_timeout_is_evidence_only_against_the_handler_whose_call_holds_the_thread(
    settings: Settings, who: str
) -> None:
    settings.NATS_CONSUMER = {"max_threads": 1}
    begun, go_on = threading.Event(), threading.Event()
    blamed: list[str] = []

    def block() -> None:
        begun.set()
        go_on.wait(timeout=30)

    async def timed_out(name: str, *functions: Callable[[], Any]) -> None:
        try:
            async with asyncio.timeout(None) as timer:
                calls = asyncio.gather(*(sync_to_async(each)() for each in functions))
                await becomes_true(begun.is_set)
                timer.reschedule(asyncio.get_running_loop().time())
                await calls
        except TimeoutError as error:
            leave_thread()
            if not is_without_evidence(error):
                blamed.append(name)

    def task(name: str, *functions: Callable[[], Any]) -> BatchTask:
        message: Any = name
        loop = asyncio.get_running_loop()
        return BatchTask(timed_out(name, *functions), loop=loop, about=("Orders", message))

    async def run() -> None:
        waits_for_itself = [int] if who == "itself" else []
        await asyncio.wait({task("guilty", block, *waits_for_itself)})
        await asyncio.wait({task("waiting", int)})
        go_on.set()

    asyncio.run(run())
    assert blamed == ["guilty"]


def test_a_blocking_call_that_others_wait_for_is_named(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.NATS_CONSUMER = {"max_threads": 1}
    monkeypatch.setattr(module, "_STALL_SECONDS", 0.05)
    monkeypatch.setattr(module, "_REST_SECONDS", 0.01)
    caplog.set_level("INFO", "nats_consumer")
    begun, go_on = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        go_on.wait(timeout=30)

    async def run() -> None:
        hung = asyncio.create_task(handler(sync_to_async(block)))
        await becomes_true(begun.is_set)
        waiting = [asyncio.create_task(handler(where)) for _ in range(2)]
        await becomes_true(lambda: caplog.records)
        go_on.set()
        await asyncio.gather(hung, *waiting)
        await becomes_true(lambda: "continues" in caplog.text)

    asyncio.run(run())
    held, free = caplog.records
    assert held.levelname == "ERROR"
    assert "a blocking call has held the thread nats_consumer-blocking-1 of" in held.getMessage()
    assert "in block > " in held.getMessage()
    assert "2 other calls wait for it" in held.getMessage()
    assert "The thread nats_consumer-blocking-1 continues" in free.getMessage()


def test_a_call_that_is_cancelled_before_it_began_is_not_made() -> None:
    go_on = threading.Event()
    calls: list[str] = []

    async def body() -> None:
        first = asyncio.create_task(sync_to_async(go_on.wait)())
        second = asyncio.create_task(sync_to_async(calls.append)("second"))
        await asyncio.sleep(0)  # both have been handed over
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go_on.set()
        await first
        await sync_to_async(calls.append)("third")

    asyncio.run(handler(body))
    assert calls == ["third"]


def test_a_task_that_outlives_its_handler_can_still_call(threads: Any) -> None:
    runs = True
    ends: list[Callable[[], None]] = []

    def call_at_end(function: Callable[[], None]) -> bool:
        if runs:
            ends.append(function)
        return runs

    async def run() -> None:
        nonlocal runs
        context = OwnThread(call_at_end).context()
        loop = asyncio.get_running_loop()
        assert await loop.create_task(where(), context=context)
        runs = False
        ends.pop()()
        assert await loop.create_task(where(), context=context)
        await becomes_true(lambda: threads._free == threads._all)

    asyncio.run(run())


def test_answers_and_errors_and_the_context_cross_over() -> None:
    language: contextvars.ContextVar[str] = contextvars.ContextVar("language")

    def fail() -> None:
        raise LookupError("there")

    async def body() -> str:
        language.set("nl")
        with pytest.raises(LookupError, match="there"):
            await sync_to_async(fail)()
        return await sync_to_async(language.get)()

    assert asyncio.run(handler(body)) == "nl"


def test_a_call_that_raises_stop_iteration_fails() -> None:
    async def body() -> None:
        # A TypeError before Python 3.12.
        with pytest.raises((TypeError, RuntimeError), match="StopIteration"):
            await sync_to_async(next)(iter(()))

    asyncio.run(handler(body))


def test_a_thread_that_nobody_calls_ends(threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REST_SECONDS", 0.01)
    monkeypatch.setattr(module, "_END_SECONDS", 0.01)
    asyncio.run(handler(where))
    eventually(lambda: not threads._all)


def test_a_thread_whose_connections_cannot_be_closed_serves_the_next_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = threading.Event()

    def fail() -> None:
        tried.set()
        raise RuntimeError("no answer")

    monkeypatch.setattr(module, "_REST_SECONDS", 0.01)
    monkeypatch.setattr(module, "close_old_connections", fail)

    async def run() -> tuple[str, str]:
        first = await handler(where)
        await becomes_true(tried.is_set)
        return first, await handler(where)

    first, second = asyncio.run(run())
    assert first == second


def test_threads_that_are_busy_at_the_end_are_named() -> None:
    go_on = threading.Event()

    async def run() -> list[str]:
        blocked = asyncio.create_task(handler(sync_to_async(go_on.wait)))
        await becomes_true(lambda: module._threads._all and module._threads._all[0].calls)
        left = end_threads()
        go_on.set()
        await blocked
        await becomes_true(lambda: not end_threads())
        return left

    assert asyncio.run(run()) == ["nats_consumer-blocking-1"]
