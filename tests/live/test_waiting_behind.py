"""Messages that a thread has taken do not wait for its slow handler."""

import asyncio
import threading
from typing import Any

import pytest

from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

FAST = 400
BEHIND = 60
BLOCKS = FAST + 1
ALL = range(1, FAST + BEHIND + 1)


async def test_no_message_waits_behind_a_slow_def_handler_while_a_thread_is_idle(
    stage: Stage,
) -> None:
    done: set[int] = set()
    release = threading.Event()

    class Orders(stage.Pull):
        concurrency = 3

        def handle_message(self, message: Any) -> None:
            number = int(message.data)
            if number == BLOCKS:
                release.wait(30)
            done.add(number)

    await stage.publish(*ALL)
    async with running(Orders):
        try:
            await becomes_true(lambda: done == set(ALL) - {BLOCKS}, explain=lambda: len(done))
        finally:
            release.set()
        await stage.everything_is_settled(Orders)


async def test_a_drain_hands_back_what_waits_behind_a_slow_def_handler(stage: Stage) -> None:
    done: set[int] = set()
    is_blocked, release = threading.Event(), threading.Event()

    class Orders(stage.Pull):
        concurrency = 1
        ack_wait = 30

        def handle_message(self, message: Any) -> None:
            number = int(message.data)
            if number == BLOCKS and not is_blocked.is_set():
                is_blocked.set()
                release.wait(30)
            done.add(number)

    await stage.publish(*ALL)
    drained = asyncio.Event()

    async def first_worker() -> None:
        async with running(Orders, drain=30):
            await drained.wait()

    worker = asyncio.create_task(first_worker())
    try:
        await becomes_true(is_blocked.is_set)
        drained.set()
        async with running(Orders):
            await becomes_true(lambda: done == set(ALL) - {BLOCKS}, explain=lambda: len(done))
            release.set()
            await worker
            await stage.everything_is_settled(Orders)
    finally:
        release.set()
