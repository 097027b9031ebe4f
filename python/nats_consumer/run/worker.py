"""Run consumers: all on one event loop, until a signal says to drain."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from nats_consumer import _native
from nats_consumer.client import get_nats_client
from nats_consumer.connect.log import LogPump
from nats_consumer.declare.options import Overrides
from nats_consumer.exceptions import WorkerError
from nats_consumer.lanes import database
from nats_consumer.streams.operation import StreamOperation

from . import event_loop, logs
from .consume import consume
from .stop import SAME_SECONDS, set_by_signals
from .supervise import Runnable, Supervised, is_unexpected

logger = logging.getLogger("nats_consumer.worker")

# Beyond the drain's own deadline: how long the engine may take to hand back and disconnect, and
# then cancelled tasks and threads to end. With 25 s to drain, all of it stays below the 30 s after
# which a process manager usually kills.
_HAND_BACK_SECONDS = 3.0
_GRACE_SECONDS = 0.75
_POLL_SECONDS = 0.05
_POOL = "nats_consumer-pool"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run and how. `shutdown_timeout` is in seconds; `event_loop` is "asyncio", "uvloop"
    or None for the setting event_loop_policy. What `beside` gives is entered as
    long as the consumers run. `exits` says that the process has nothing else to do
    afterwards, so that a late signal may not change its status."""

    consumers: Sequence[type[Runnable]]
    setup: bool = False
    overrides: Overrides = field(default_factory=Overrides)
    shutdown_timeout: float
    event_loop: str | None = None
    exits: bool = False
    beside: Callable[[], AbstractContextManager[None]] = nullcontext


def run(plan: Plan) -> None:
    """Run the consumers until SIGTERM or SIGINT; then drain them and return. Raises the error if
    not one of them could be started at first, and ConfigurationError.

    A second signal, at least a second after the first, ends the process at once (130 or 143).
    Where something does not end although it was drained, the process ends here, with status 0."""
    loop_factory = event_loop.factory(plan.event_loop)
    with (
        LogPump(_native.take_logs, _native.wake_logs),
        asyncio.Runner(loop_factory=loop_factory) as runner,
        plan.beside(),
    ):
        still_running = _run_through(runner.get_loop(), _Worker(plan).run())
        if still_running:
            # Python would wait for it forever.
            logger.warning("The process ends while these still run: %s.", ", ".join(still_running))
            logs.flush()
            os._exit(0)


def _run_through(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, list[str]]
) -> list[str]:
    """Run `work` to its end, although asyncio ends the loop where a task raises SystemExit: one
    handler's task is not to end all others. Code that awaits the task still gets the exception."""
    task = loop.create_task(work)
    while True:
        try:
            return loop.run_until_complete(task)
        except SystemExit as error:
            if task.done():
                raise
            logger.error(
                "A task called sys.exit(%s). The task has ended, and the worker continues. Send "
                "SIGTERM to stop the worker.",
                error,
            )


class _Worker:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._supervised: list[Supervised] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._pool = ThreadPoolExecutor(thread_name_prefix=_POOL)

    async def run(self) -> list[str]:
        """Returns the names of what still runs when everything should have ended."""
        stopping = asyncio.Event()
        # Our own, so that its threads can be told from others at the end.
        asyncio.get_running_loop().set_default_executor(self._pool)
        with set_by_signals(stopping, grace=self._plan.shutdown_timeout, exits=self._plan.exits):
            self._supervised = [self._supervise(each) for each in self._plan.consumers]
            self._tasks = [
                asyncio.create_task(self._launch()),
                asyncio.create_task(database.keep_connections_fresh()),
            ]
            await self._first_starts(stopping)
            await stopping.wait()
            return await self._end()

    def _supervise(self, consumer: type[Runnable]) -> Supervised:
        return Supervised(
            consumer,
            consume=consume,
            apply=_apply if self._plan.setup else None,
            overrides=self._plan.overrides,
        )

    async def _launch(self) -> None:
        # First all the streams: a consumer may rely on a stream that another one sets up.
        await asyncio.gather(*(each.set_up() for each in self._supervised))
        await asyncio.gather(
            *(asyncio.create_task(each.run(), name=each.name) for each in self._supervised)
        )

    async def _first_starts(self, stopping: asyncio.Event) -> None:
        """Wait until each consumer has started or failed to, or a signal came. Raises if all have
        failed; if some have, they are logged."""
        starts = [each.first_start for each in self._supervised]
        signalled = asyncio.create_task(stopping.wait())
        all_starts = asyncio.create_task(asyncio.wait(starts))
        await asyncio.wait([all_starts, signalled], return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        all_starts.cancel()
        failures = {
            each: error
            for each in self._supervised
            if each.first_start.done() and (error := each.first_start.exception())
        }
        for start in starts:
            start.cancel()  # what fails from now on is logged
        if len(failures) == len(self._supervised):
            raise _none_started(failures)
        for each, error in failures.items():
            each.log_failed_start(error)

    async def _end(self) -> list[str]:
        timeout = self._plan.shutdown_timeout
        logger.info(
            "Draining: running handlers have up to %g s to finish. A second signal, at least %g s "
            "after the first, ends the process at once.",
            timeout,
            SAME_SECONDS,
        )
        drains = asyncio.gather(
            *(each.drain(timeout) for each in self._supervised), return_exceptions=True
        )
        done, _ = await asyncio.wait({drains}, timeout=timeout + _HAND_BACK_SECONDS)
        for problem in drains.result() if done else ["the engine did not finish draining in time"]:
            if problem is not None:
                logger.error("Draining failed: %s", problem)
        left = await self._left_behind(await _cancel_tasks())
        logger.info("Drained.")
        return left

    async def _left_behind(self, tasks: list[str]) -> list[str]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _GRACE_SECONDS
        self._pool.shutdown(wait=False)
        orm = asyncio.create_task(database.idle())
        # A thread's end is no event that the loop could wait for.
        while (threads := self._threads(orm)) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
        return [*tasks, *threads]

    def _threads(self, orm: asyncio.Task[None]) -> list[str]:
        names = [name for each in self._supervised for name in each.stuck_threads()]
        names += [each.name for each in threading.enumerate() if each.name.startswith(_POOL)]
        return names if orm.done() else [*names, "a call made with sync_to_async"]


async def _apply(operations: list[StreamOperation]) -> None:
    if not operations:
        return
    async with await get_nats_client() as client:
        for operation in operations:
            await operation.execute(client)


async def _cancel_tasks() -> list[str]:
    """Cancel every task but this one; returns the names of those that refuse."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if not tasks:
        return []
    _, pending = await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
    return [task.get_name() for task in pending]


def _none_started(failures: dict[Supervised, BaseException]) -> BaseException:
    errors = list(failures.values())
    if len(set(map(str, errors))) == 1:
        return errors[0]
    for each, error in failures.items():
        if is_unexpected(error):
            each.log_failed_start(error)
    reasons = "\n".join(f"{each.name}: {error}" for each, error in failures.items())
    return WorkerError(f"No consumer could be started.\n{reasons}")
