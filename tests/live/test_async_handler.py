"""An `async def` handler is an ordinary coroutine in an ordinary Task."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
import sniffio
from asgiref.sync import sync_to_async

from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

current: ContextVar[str] = ContextVar("current", default="unset")


async def test_current_task_is_a_task_of_the_running_loop(stage: Stage) -> None:
    tasks = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            before = asyncio.current_task()
            await asyncio.sleep(0)
            assert asyncio.current_task() is before
            tasks.append(before)

    async with running(Orders):
        await stage.publish("one", "two")
        await stage.everything_is_settled(Orders)
    assert len(tasks) == 2
    assert all(isinstance(task, asyncio.Task) for task in tasks)
    assert asyncio.current_task() not in tasks


async def test_asyncio_timeout_fires_and_spares_the_next_message(stage: Stage) -> None:
    seen = []

    class Orders(stage.Push):
        async def handle_message(self, message: Any) -> None:
            if message.data == b"slow":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await asyncio.Event().wait()
            async with asyncio.timeout(10):
                await asyncio.sleep(0)
            seen.append((message.data, message.attempt, asyncio.current_task().cancelling()))

    async with running(Orders):
        await stage.publish("slow", "fast")
        await stage.everything_is_settled(Orders)
    assert seen == [(b"slow", 1, 0), (b"fast", 1, 0)]


async def test_timeout_that_nobody_catches_is_a_failed_attempt(stage: Stage) -> None:
    seen = []

    class Orders(stage.Push):
        async def handle_message(self, message: Any) -> None:
            seen.append((message.data, message.attempt))
            if message.attempt == 1 and message.data == b"slow":
                async with asyncio.timeout(0.05):
                    await asyncio.Event().wait()

    async with running(Orders):
        await stage.publish("slow", "fast")
        await stage.everything_is_settled(Orders)
    assert sorted(seen) == [(b"fast", 1), (b"slow", 1), (b"slow", 2)]


async def test_task_group_runs_its_tasks_and_fails_with_them(stage: Stage) -> None:
    seen = []

    async def part(message: Any, number: int) -> None:
        await asyncio.sleep(0)
        if message.attempt == 1 and number == 2:
            raise ValueError("a part failed")
        seen.append((message.attempt, number))

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(part(message, number))

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        assert orders.total_success_count == 1
    assert {number for attempt, number in seen if attempt == 2} == {0, 1, 2}


async def test_gather_collects(stage: Stage) -> None:
    seen = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            seen.extend(await asyncio.gather(*(asyncio.sleep(0, n) for n in range(3))))

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert seen == [0, 1, 2]


async def test_cancelled_inner_task_ends_neither_handler_nor_worker(stage: Stage) -> None:
    seen = []

    class Orders(stage.Push):
        async def handle_message(self, message: Any) -> None:
            inner = asyncio.create_task(asyncio.Event().wait())
            await asyncio.sleep(0)
            inner.cancel()
            if message.data == b"caught":
                with pytest.raises(asyncio.CancelledError):
                    await inner
            elif message.attempt == 1:
                await inner
            seen.append((message.data, message.attempt))

    async with running(Orders) as orders:
        await stage.publish("not caught", "caught", "next")
        await stage.everything_is_settled(Orders)
        assert orders.total_success_count == 3
    assert sorted(seen) == [(b"caught", 1), (b"next", 2), (b"not caught", 2)]


async def test_context_variables_are_each_deliverys_own(stage: Stage) -> None:
    found = []

    class Orders(stage.Pull):
        concurrency = 3

        async def handle_message(self, message: Any) -> None:
            before = current.get()
            current.set(message.data.decode())
            await asyncio.sleep(0.01)
            found.append((before, current.get(), message.data.decode()))

    async with running(Orders):
        await stage.publish(*range(20))
        await stage.everything_is_settled(Orders)
    assert len(found) == 20
    assert all(before == "unset" and after == own for before, after, own in found)
    assert current.get() == "unset"


async def test_sync_to_async_returns_to_the_loop_and_keeps_the_context(stage: Stage) -> None:
    found = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            current.set(message.data.decode())
            task = asyncio.current_task()
            found.append(await sync_to_async(current.get)())
            assert asyncio.current_task() is task

    async with running(Orders):
        await stage.publish("one", "two", "three")
        await stage.everything_is_settled(Orders)
    assert sorted(found) == ["one", "three", "two"]


async def test_anyio_finds_its_way_as_in_any_task(stage: Stage) -> None:
    found: list[Any] = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            current.set(message.data.decode())
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 0)
            with anyio.move_on_after(0.01) as scope:
                await anyio.sleep_forever()
            before = anyio.get_current_task().id
            in_thread = await anyio.to_thread.run_sync(current.get)
            assert anyio.get_current_task().id == before
            found.append((message.data.decode(), in_thread, scope.cancelled_caught))

    async with running(Orders):
        await stage.publish("one", "two", "three")
        await stage.everything_is_settled(Orders)
    assert sorted(found) == [(name, name, True) for name in ("one", "three", "two")]


async def test_sniffio_names_asyncio(stage: Stage) -> None:
    found = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            before = sniffio.current_async_library()
            await asyncio.sleep(0)
            found.append((before, sniffio.current_async_library()))

    async with running(Orders):
        await stage.publish("one", "two")
        await stage.everything_is_settled(Orders)
    assert found == [("asyncio", "asyncio")] * 2


async def test_handler_that_only_returns_an_awaitable_is_awaited(stage: Stage) -> None:
    seen = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.set_result, message.data)
            seen.append(await future)

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert seen == [b"one"]


async def test_error_in_a_handler_keeps_its_traceback_for_handle_error(stage: Stage) -> None:
    places: list[str] = []

    class Orders(stage.Pull):
        max_retries = 0

        async def handle_message(self, message: Any) -> None:
            await asyncio.sleep(0)
            raise ValueError("no")

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            traceback = error.__traceback__
            while traceback is not None:
                places.append(traceback.tb_frame.f_code.co_name)
                traceback = traceback.tb_next
            await message.ack()

    async with running(Orders):
        await stage.publish("one")
        await becomes_true(lambda: places)
    assert places[-1] == "handle_message"


async def test_handler_that_cancels_its_own_task_does_not_stop_the_consumer(stage: Stage) -> None:
    seen = []

    class Orders(stage.Push):
        async def handle_message(self, message: Any) -> None:
            if message.data == b"bad" and message.attempt == 1:
                asyncio.current_task().cancel()
                await asyncio.sleep(0)
            seen.append((message.data, message.attempt))

    async with running(Orders):
        await stage.publish("bad", "good")
        await stage.everything_is_settled(Orders)
    assert sorted(seen) == [(b"bad", 2), (b"good", 1)]


async def test_idle_task_that_somebody_cancels_is_replaced(stage: Stage) -> None:
    tasks = []

    class Orders(stage.Push):
        async def handle_message(self, message: Any) -> None:
            tasks.append(asyncio.current_task())

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        tasks[0].cancel()
        await becomes_true(tasks[0].done)
        await stage.publish("two")
        await stage.everything_is_settled(Orders)
    assert tasks[0] is not tasks[1]


async def test_message_for_a_task_at_rest_is_handled_in_the_loops_turn_that_sees_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    is_looking = False
    event_loop = asyncio.get_running_loop()
    add_reader = event_loop.add_reader

    def add_observed_reader(fd: int, callback: Callable[[], None]) -> None:
        def look() -> None:
            nonlocal is_looking
            is_looking = True
            callback()
            is_looking = False

        add_reader(fd, look)

    monkeypatch.setattr(event_loop, "add_reader", add_observed_reader)

    class Orders(stage.Push):
        async def handle_message(self, message: Any) -> None:
            seen.append((is_looking, asyncio.current_task()))

    async with running(Orders):
        for data in ("one", "two"):
            await stage.publish(data)
            await stage.everything_is_settled(Orders)
    (_, task), (was_looking, same_task) = seen
    assert was_looking
    assert same_task is task


async def test_idle_task_that_is_cancelled_twice_is_replaced_once(stage: Stage) -> None:
    tasks = []

    class Orders(stage.Push):
        async def handle_message(self, message: Any) -> None:
            tasks.append(asyncio.current_task())

    async with running(Orders):
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        tasks[0].cancel("first")
        tasks[0].cancel("second")
        await becomes_true(tasks[0].done)
        assert tasks[0].cancelled()
        await stage.publish("two", "three")
        await stage.everything_is_settled(Orders)
    assert tasks[0] not in tasks[1:]
    assert len(tasks) == 3


async def test_returned_coroutine_that_nobody_awaited_is_a_failed_attempt(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    done = []

    async def work(message: Any) -> None:
        done.append(message.attempt)

    class Orders(stage.Push):
        async def handle_message(self, message: Any) -> Any:
            if message.attempt > 1:
                return await work(message)
            forgotten = work(message)
            self.forgotten = forgotten
            return forgotten

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        orders.forgotten.close()
    assert done == [2]
    assert "handle_message returned a coroutine that is not awaited" in caplog.text
