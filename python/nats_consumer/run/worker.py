"""Run consumers: all on one event loop, until a signal says to drain."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn

from django.utils.autoreload import get_child_arguments

from nats_consumer import _native
from nats_consumer.client import Client, get_nats_client
from nats_consumer.connect.log import LogPump
from nats_consumer.declare.middleware import middleware
from nats_consumer.declare.options import Overrides
from nats_consumer.exceptions import WorkerError
from nats_consumer.lanes import database, handler_threads, own_thread
from nats_consumer.streams.operation import StreamOperation

from . import event_loop, logs
from .consume import consume
from .keep_running import KeptRunning, Runnable, is_unexpected
from .notify import Manager
from .probes import Observers, observed
from .stacks import show_at_signal
from .stop import SAME_SECONDS, Heard, set_by_signals

logger = logging.getLogger("nats_consumer.worker")

# Beyond the drain's own deadline: how long the engine may take to hand back and disconnect, and
# then cancelled tasks and threads to end. All of it stays below the 4.5 s after which the engine
# ends the process, and with 25 s to drain below the 30 s after which a process manager usually
# kills.
_HAND_BACK_SECONDS = 3.0
_GRACE_SECONDS = 0.6
_POLL_SECONDS = 0.05
_POOL = "nats_consumer-pool"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The consumers to run, and how.

    `shutdown_timeout` is in seconds. `event_loop` is "asyncio", "uvloop" or None for the setting
    event_loop_policy. The context manager of `beside` is open while the consumers run. `exits` says
    that the process has nothing else to do afterwards: a late signal may then not change its
    status. `restarts` says that SIGHUP lets it begin again."""

    consumers: Sequence[type[Runnable]]
    setup: bool = False
    overrides: Overrides = field(default_factory=Overrides)
    shutdown_timeout: float
    event_loop: str | None = None
    exits: bool = False
    restarts: bool = False
    observers: Observers = field(default_factory=Observers)
    beside: Callable[[], AbstractContextManager[None]] = nullcontext


def run(plan: Plan) -> None:
    """Run the consumers until SIGTERM or SIGINT; then drain them and return. Raises the error if
    not one of them could be started at first, and ConfigurationError.

    A second signal, at least a second after the first, ends the process at once (130 or 143).
    Where something does not end although it was drained, the process ends here, with status 0.
    After SIGHUP a process that `restarts` becomes a new one with the same command line."""
    loop_factory = event_loop.factory(plan.event_loop)
    worker = _Worker(plan)
    if plan.exits:
        show_at_signal()
    with (
        # Its thread also shows for how long the GIL is held.
        LogPump(_native.take_logs, _native.wake_logs, polls=bool(plan.observers)),
        observed(plan.observers, plan.consumers, plan.overrides),
        asyncio.Runner(loop_factory=loop_factory) as runner,
        plan.beside(),
    ):
        still_running = _run_through(runner.get_loop(), worker.run())
        _flush_middleware()
        if still_running:
            # Python would wait for it forever.
            logger.warning("The process ends while these still run: %s.", ", ".join(still_running))
            _end_at_once(restarts=worker.is_to_restart)
    if worker.is_to_restart:
        _begin_again()


def _flush_middleware() -> None:
    """Let each middleware send what it holds: the process may end without Python's own clean-up."""
    for each in middleware():
        flush = getattr(each.factory, "flush", None)
        if flush is None:
            continue
        try:
            flush()
        except Exception:
            logger.exception("The middleware %s could not be flushed.", each.path)


def _end_at_once(*, restarts: bool) -> None:
    if restarts:
        _begin_again()
    logs.flush()
    os._exit(0)


def _begin_again() -> NoReturn:
    logger.info("Restarting.")
    logs.flush()
    command, *arguments = get_child_arguments()
    os.execv(command, [command, *arguments])  # noqa: S606 -- no shell is wanted


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
        self._kept_running: list[KeptRunning] = []
        self._launching: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(thread_name_prefix=_POOL)
        self._heard: Heard | None = None
        self._manager = Manager()

    @property
    def is_to_restart(self) -> bool:
        """Whether a signal asked for the process to begin again."""
        return self._plan.restarts and self._heard is not None and self._heard.restarts

    async def run(self) -> list[str]:
        """Returns the names of what still runs when everything should have ended."""
        stopping = asyncio.Event()
        # Our own, so that its threads can be told from others at the end.
        asyncio.get_running_loop().set_default_executor(self._pool)
        self._give_signs_of_life()
        with set_by_signals(
            stopping, grace=self._plan.shutdown_timeout, exits=self._plan.exits
        ) as self._heard:
            self._kept_running = [self._keep_running(each) for each in self._plan.consumers]
            self._launching = asyncio.create_task(self._launch())
            await self._first_starts(stopping)
            if not stopping.is_set():
                self._manager.ready(f"{len(self._kept_running)} consumers.")
            await stopping.wait()
            self._tell_end()
            return await self._end()

    def _tell_end(self) -> None:
        if self.is_to_restart:
            self._manager.reloading()
        else:
            self._manager.stopping()

    def _give_signs_of_life(self) -> None:
        interval = self._manager.watchdog
        if interval is not None and self._manager.address is not None:
            _native.keep_watchdog(self._manager.address, interval)

    def _keep_running(self, consumer: type[Runnable]) -> KeptRunning:
        return KeptRunning(
            consumer,
            consume=consume,
            apply=_apply if self._plan.setup else None,
            note_failed_start=_native.note_failed_start,
            overrides=self._plan.overrides,
        )

    async def _launch(self) -> None:
        # First all the streams: a consumer may rely on a stream that another one sets up.
        await asyncio.gather(*(each.set_up() for each in self._kept_running))
        await asyncio.gather(
            *(asyncio.create_task(each.run(), name=each.name) for each in self._kept_running)
        )

    async def _first_starts(self, stopping: asyncio.Event) -> None:
        """Wait until each consumer has started or failed to, or a signal came. Raises if all have
        failed; if some have, they are logged."""
        starts = [each.first_start for each in self._kept_running]
        signalled = asyncio.create_task(stopping.wait())
        all_starts = asyncio.create_task(asyncio.wait(starts))
        await asyncio.wait([all_starts, signalled], return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        all_starts.cancel()
        failures = {
            each: error
            for each in self._kept_running
            if each.first_start.done() and (error := each.first_start.exception())
        }
        for start in starts:
            start.cancel()  # what fails from now on is logged
        if len(failures) == len(self._kept_running):
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
            *(each.drain(timeout) for each in self._kept_running), return_exceptions=True
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
        names = [name for each in self._kept_running for name in each.stuck_threads()]
        names += [name for name in handler_threads.alive() if name not in names]
        names += own_thread.end_threads()
        names += [each.name for each in threading.enumerate() if each.name.startswith(_POOL)]
        return names if orm.done() else [*names, "a call made with sync_to_async"]


async def _apply(operations: list[StreamOperation], connection: str) -> None:
    clients: dict[str, Client] = {}
    async with AsyncExitStack() as closing:
        for operation in operations:
            using = operation.using or connection
            if using not in clients:
                client = await get_nats_client(using=using)
                clients[using] = await closing.enter_async_context(client)
            await operation.execute(clients[using])


async def _cancel_tasks() -> list[str]:
    """Cancel every task but this one; returns the names of those that refuse."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if not tasks:
        return []
    _, pending = await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
    return [task.get_name() for task in pending]


def _none_started(failures: dict[KeptRunning, BaseException]) -> BaseException:
    errors = list(failures.values())
    if len(set(map(str, errors))) == 1:
        return errors[0]
    for each, error in failures.items():
        if is_unexpected(error):
            each.log_failed_start(error)
    reasons = "\n".join(f"{each.name}: {error}" for each, error in failures.items())
    return WorkerError(f"No consumer could be started.\n{reasons}")
