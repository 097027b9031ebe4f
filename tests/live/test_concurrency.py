"""How many messages are handled at once, in which order, and what goes on beside them."""

import asyncio
import os
import signal
import threading
import time
from typing import Any

import pytest

from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


class Gauge:
    """How many are inside at once, and how many were at most."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


@pytest.mark.parametrize("kind", ["Pull", "Push"])
async def test_as_many_async_handlers_run_at_once_as_concurrency_says(
    stage: Stage, kind: str
) -> None:
    gauge, release = Gauge(), asyncio.Event()

    class Orders(getattr(stage, kind)):
        concurrency = 5

        async def handle_message(self, message: Any) -> None:
            with gauge:
                await release.wait()
                await asyncio.sleep(0)

    async with running(Orders) as orders:
        await stage.publish(*range(20))
        await becomes_true(lambda: gauge.now == 5)
        release.set()
        await stage.everything_is_settled(Orders)
        assert orders.total_success_count == 20
    assert gauge.most == 5


@pytest.mark.parametrize("kind", ["Pull", "Push"])
async def test_as_many_threads_run_at_once_as_concurrency_says(stage: Stage, kind: str) -> None:
    gauge, release = Gauge(), threading.Event()
    threads = set()

    class Orders(getattr(stage, kind)):
        concurrency = 3

        def handle_message(self, message: Any) -> None:
            with gauge:
                threads.add(threading.current_thread())
                release.wait(10)

    async with running(Orders) as orders:
        await stage.publish(*range(12))
        await becomes_true(lambda: gauge.now == 3)
        release.set()
        await stage.everything_is_settled(Orders)
        assert orders.total_success_count == 12
    assert gauge.most == 3
    assert len(threads) == 3
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("awaits", [True, False])
async def test_push_keeps_the_order_unless_told_otherwise(stage: Stage, awaits: bool) -> None:
    seen: list[int] = []
    gauge = Gauge()

    class Orders(stage.Push):
        async def handle_message(self, message: Any) -> None:
            with gauge:
                if awaits:
                    await asyncio.sleep(0)
                seen.append(int(message.data))

    async with running(Orders):
        await stage.publish(*range(100))
        await stage.everything_is_settled(Orders)
    assert seen == list(range(100))
    assert gauge.most == 1


async def test_push_in_a_thread_keeps_the_order(stage: Stage) -> None:
    seen: list[int] = []

    class Orders(stage.Push):
        def handle_message(self, message: Any) -> None:
            seen.append(int(message.data))

    async with running(Orders):
        await stage.publish(*range(100))
        await stage.everything_is_settled(Orders)
    assert seen == list(range(100))


async def test_handler_that_never_awaits_leaves_the_loop_to_others(stage: Stage) -> None:
    handled, ticks, beside, signalled = [], [], [], []

    class Busy(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            # Computes: for 2 ms nothing else can run.
            end = time.perf_counter() + 0.002
            while time.perf_counter() < end:
                pass
            handled.append(len(ticks))
            if len(handled) == 20:
                os.kill(os.getpid(), signal.SIGUSR1)

    class Beside(stage.Push):
        async def handle_message(self, message: Any) -> None:
            beside.append(len(handled))

    async def tick() -> None:
        while True:
            ticks.append(len(handled))
            await asyncio.sleep(0.001)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: signalled.append(len(handled)))
    await stage.publish(*range(200))
    async with running(Busy), running(Beside):
        ticking = asyncio.create_task(tick())
        await becomes_true(lambda: len(handled) == 200 and len(beside) == 200)
        ticking.cancel()
    loop.remove_signal_handler(signal.SIGUSR1)
    # Had the messages been handled in one go, none of these would lie in between.
    assert any(0 < count < 200 for count in ticks)
    assert any(0 < count < 200 for count in beside)
    assert 20 <= signalled[0] < 200


async def test_one_waiting_handler_does_not_hold_up_the_others(stage: Stage) -> None:
    release, seen = asyncio.Event(), []

    class Orders(stage.Pull):
        concurrency = 2

        async def handle_message(self, message: Any) -> None:
            if message.data == b"slow":
                await release.wait()
            seen.append(message.data.decode())

    async with running(Orders):
        await stage.publish("slow", *range(30))
        await becomes_true(lambda: len(seen) == 30)
        assert "slow" not in seen
        release.set()
        await stage.everything_is_settled(Orders)
    assert len(seen) == 31


async def test_ten_thousand_handlers_wait_at_once_and_the_rest_stays_at_the_server(
    stage: Stage,
) -> None:
    gauge, release = Gauge(), asyncio.Event()
    places = 10_000

    class Orders(stage.Pull):
        concurrency = places
        batch_size = places

        async def handle_message(self, message: Any) -> None:
            with gauge:
                await release.wait()

    for number in range(places + 500):
        await stage.client.publish(f"{stage.stream}.created", b"%d" % number)
    await stage.client.flush()
    async with running(Orders) as orders:
        await becomes_true(lambda: gauge.now == places, within=30)
        assert stage.consumer(Orders)["num_pending"] > 0, "the rest is left to the server"
        release.set()
        await stage.everything_is_settled(Orders)
        assert orders.total_success_count == places + 500
    assert stage.consumer(Orders)["num_redelivered"] == 0
    assert gauge.most == places
