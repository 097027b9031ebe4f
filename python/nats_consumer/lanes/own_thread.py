"""Threads for the blocking code of `async def` handlers. A handler has one for itself from its
first sync_to_async() or query until it ends, and with the thread a database connection."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import cached_property, partial
from operator import attrgetter
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, cast

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.db import close_old_connections

from nats_consumer import _native
from nats_consumer._native import Promise
from nats_consumer.settings import max_threads

from .database import (
    are_pooled,
    close_connections,
    has_one_writer,
    note_failure,
    refresh,
    replace_broken,
)
from .forked import ChildrenEnd
from .place import place_of

# A thread that nobody has called for this long closes its connections as CONN_MAX_AGE says, and
# ends after the longer time.
_REST_SECONDS = 1.0
_END_SECONDS = 10.0
_NAME = "nats_consumer-blocking"
# As long as an event loop, or the threads of `def` handlers, may stand still before the log has it.
_STALL_SECONDS = 9.0

_Work = Callable[[], Any]
_load = attrgetter("load")
# A thread whose call has outlived its handler is shared last.
_LOAD_OF_HELD = 1_000_000

logger = logging.getLogger("nats_consumer.worker")


class OwnThread(Executor):
    """The thread of the handler that runs in a Task.

    `call_at_end(function)` has the function called when that handler ends, and returns whether one
    runs."""

    def __init__(self, call_at_end: Callable[[_Work], bool]) -> None:
        self._call_at_end = call_at_end
        self._thread: _Thread | None = None
        self.turn = 0
        """The number of the handler of the Task, of those that had a thread."""
        self._last: _Call | None = None
        self._blocked: object = None

    def enter(self) -> None:
        """Have sync_to_async() call its functions in the thread, in this context."""
        key = ThreadSensitiveContext()
        executors: Any = SyncToAsync.context_to_thread_executor
        executors[key] = self
        SyncToAsync.thread_sensitive_context.set(key)

    def context(self) -> Context:
        """A copy of this context, entered."""
        context = copy_context()
        context.run(self.enter)
        return context

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `fn` in the thread. Returns a future of the event loop, so that nobody has to pass
        on the answer of another one."""
        future, promise = _native.promise()
        work = partial(fn, *args, **kwargs) if args or kwargs else fn
        thread = self._thread
        if thread is None:
            thread = _threads.take()
            work = thread.prepared(work)
            if self._call_at_end(self.leave):
                self._thread = thread
            else:  # A task calls that has outlived its handler.
                future.add_done_callback(lambda _: _threads.give_back(thread))
        call = _Call(work, future, promise, self, self.turn)
        if self._thread is not None:
            self._last = call
        _threads.call(thread, call)
        return future

    def leave(self) -> None:
        """Give the thread back: it is free when it has done what it was called for."""
        thread, self._thread = self._thread, None
        self._blocked = None
        if thread is not None:
            self._blocked = _message() if self._waits_for(thread) else None
            self._last = None  # or the idle Task would keep its answer
            self.turn += 1  # first: the thread may begin a call of the handler meanwhile
            _threads.give_back(thread)

    def was_blocked(self) -> bool:
        """Whether the last call of the handler that runs, or has just ended, waits for the call of
        another handler."""
        if self._thread is not None and self._waits_for(self._thread):
            return True
        return self._blocked is not None and self._blocked is _message()

    def _waits_for(self, thread: "_Thread") -> bool:
        held_by = thread.current
        if self._last is None or self._last.has_begun or held_by is None:
            return False
        return held_by.owner is not self or held_by.turn != self.turn


@contextmanager
def own_thread() -> Iterator[None]:
    """Let the body have a thread of its own, if it needs one."""
    executor = OwnThread(lambda _: True)
    before: Any = SyncToAsync.thread_sensitive_context.get(None)
    executor.enter()
    try:
        yield
    finally:
        executor.leave()
        SyncToAsync.thread_sensitive_context.set(before)


def leave_thread() -> None:
    """Give back the thread that the handler of this Task has: what follows gets another one."""
    key = SyncToAsync.thread_sensitive_context.get(None)
    executor = SyncToAsync.context_to_thread_executor.get(key) if key is not None else None
    if isinstance(executor, OwnThread):
        executor.leave()


def was_blocked() -> bool:
    """Whether the handler of this Task ended before its last call began, because the call of
    another one held the thread."""
    own = getattr(asyncio.current_task(), "own_thread", None)
    return isinstance(own, OwnThread) and own.was_blocked()


def _message() -> object:
    """The message of the handler of this Task."""
    task: Any = asyncio.current_task()
    return task.stepped()[1] if hasattr(task, "stepped") else None


def end_threads() -> list[str]:
    """Let the threads end that nobody has. Returns the names of those that have not ended."""
    return _threads.end()


class _Call:
    """Work for a thread, and the future that waits for it."""

    __slots__ = ("_future", "_promise", "_work", "has_begun", "owner", "turn")

    def __init__(
        self,
        work: _Work,
        future: "asyncio.Future[Any]",
        promise: Promise,
        owner: OwnThread,
        turn: int,
    ) -> None:
        self._work = work
        self._future = future
        self._promise = promise
        self.has_begun = False
        # The handler that calls.
        self.owner = owner
        self.turn = turn

    @property
    def has_outlived(self) -> bool:
        """Whether the handler that called has ended."""
        return self.turn != self.owner.turn

    def make(self) -> None:
        """Do the work, unless nobody waits for it any more."""
        if self._future.cancelled():
            return
        self.has_begun = True
        try:
            with ChildrenEnd():
                result = self._work()
        except BaseException as error:
            note_failure()
            self._promise.fail(error)
        else:
            self._promise.keep(result)


class _Return:
    """Connections of a pool go back to it."""

    owner = None
    turn = 0
    has_outlived = False

    def make(self) -> None:
        try:
            refresh()
        except Exception:
            logger.exception("A database connection could not be given back to its pool.")


class _Thread:
    """A thread, and the number of handlers that have it."""

    def __init__(self, name: str) -> None:
        self.users = 0
        self.calls = 0
        """The calls that it has not made yet."""
        self.made = 0
        self.current: _Call | _Return | None = None
        self.load = 0
        """What a handler that would share it competes with. A plain number: all are compared for
        each message when all are taken."""
        self.watched_on: asyncio.AbstractEventLoop | None = None
        self.patience = _STALL_SECONDS
        self.is_pooled = are_pooled()
        self._queue: SimpleQueue[_Call | _Return | None] = SimpleQueue()
        # A call that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The name by which Python knows it."""
        return self._thread.name

    @property
    def number(self) -> int:
        """The number by which Python knows it."""
        return self._thread.ident or 0

    def weigh(self) -> None:
        """Bring the load up to date."""
        is_held = self.current is not None and self.current.has_outlived
        self.load = self.users + self.calls + (_LOAD_OF_HELD if is_held else 0)

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def put(self, call: _Call | _Return | None) -> None:
        """Let it make a call after those that it was given before, or end."""
        self._queue.put(call)

    def prepared(self, work: _Work) -> _Work:
        """The first work of a handler, with its connections looked after as before a request."""

        def prepare() -> Any:
            # A handler that shares the thread may be in the middle of something.
            (refresh if self.users == 1 else replace_broken)()
            return work()

        return prepare

    def _run(self) -> None:
        try:
            while call := self._next():
                self.current = call
                if call.has_outlived:
                    _threads.weigh(self)
                call.make()
                self.current = None
                del call  # or the idle thread would keep its answer
                _threads.note_made(self)
        finally:
            close_connections()

    def _next(self) -> _Call | _Return | None:
        is_closed = False
        while True:
            try:
                return self._queue.get(timeout=_END_SECONDS if is_closed else _REST_SECONDS)
            except Empty:
                if is_closed and _threads.remove(self):
                    return None
                if self.users == 0:
                    _close_idle()
                    is_closed = True


def _close_idle() -> None:
    # A thread that ended here would still be given to handlers.
    try:
        close_old_connections()
    except Exception:
        logger.exception("The database connections of an idle thread could not be closed.")


class _Threads:
    """The threads of this process. One is started when a handler needs one and none is free, up to
    max_threads; then handlers share them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._all: list[_Thread] = []
        self._free: list[_Thread] = []
        self._started = 0

    def take(self) -> _Thread:
        """A thread for one more handler: the one that was used last, which has a connection."""
        with self._lock:
            thread = self._free.pop() if self._free else self._started_or_shared()
            thread.users += 1
            thread.weigh()
            return thread

    def call(self, thread: _Thread, call: _Call) -> None:
        """Let the thread make a call."""
        with self._lock:
            thread.calls += 1
            thread.weigh()
        thread.put(call)
        if thread.calls > 1:
            _watch(thread)

    def weigh(self, thread: _Thread) -> None:
        """The thread begins a call of a handler that has ended."""
        with self._lock:
            thread.weigh()

    def note_made(self, thread: _Thread) -> None:
        """The thread has made a call."""
        with self._lock:
            thread.calls -= 1
            thread.made += 1
            thread.weigh()
            self._note_if_free(thread)

    def give_back(self, thread: _Thread) -> None:
        """A handler that had the thread has ended."""
        with self._lock:
            thread.users -= 1
            if thread.users == 0 and thread.is_pooled:
                thread.calls += 1
                thread.put(_Return())
            thread.weigh()
            self._note_if_free(thread)

    def remove(self, thread: _Thread) -> bool:
        """Let the thread end if it is free."""
        with self._lock:
            if thread not in self._free:
                return False
            self._free.remove(thread)
            self._all.remove(thread)
            return True

    def end(self) -> list[str]:
        """Let all free threads end. Returns the names of those that have not."""
        with self._lock:
            ending, self._free = self._free, []
            for thread in ending:
                thread.put(None)
            self._all = [each for each in self._all if each.is_alive()]
            return [each.name for each in self._all]

    @cached_property
    def _most(self) -> int:
        return 1 if has_one_writer() else max_threads()

    def _started_or_shared(self) -> _Thread:
        if len(self._all) >= self._most:
            return min(self._all, key=_load)
        self._started += 1
        thread = _Thread(f"{_NAME}-{self._started}")
        self._all.append(thread)
        return thread

    def _note_if_free(self, thread: _Thread) -> None:
        if thread.users == thread.calls == 0:
            self._free.append(thread)


def _watch(thread: _Thread) -> None:
    """Have it logged if the call that runs lasts, while others wait behind it."""
    loop = asyncio.get_running_loop()
    if thread.watched_on is not loop:
        thread.watched_on = loop
        loop.call_later(thread.patience, _look, thread, thread.made, 0.0)


def _look(thread: _Thread, made: int, stood: float) -> None:
    """Look whether the thread has made a call meanwhile. It has stood still for `stood` seconds,
    and the log has it; 0.0 if not."""
    loop = asyncio.get_running_loop()
    stands = thread.made == made and thread.calls > 1
    if stands and not stood:
        stood = thread.patience
        logger.error("%s", _described(thread, loop))
    elif stands:
        stood += _REST_SECONDS
    elif stood:
        logger.info("The thread %s continues after %g s.", thread.name, stood)
        # The calls are slow and not stuck: it is said again if one takes much longer.
        thread.patience, stood = max(thread.patience, 2 * stood), 0.0
    if thread.calls > 1:
        pause = _REST_SECONDS if stood else thread.patience
        loop.call_later(pause, _look, thread, thread.made, stood)
    else:
        thread.watched_on = None


def _described(thread: _Thread, loop: asyncio.AbstractEventLoop) -> str:
    tasks = [task for task in asyncio.all_tasks(loop) if _thread_of(task) is thread]
    names = sorted({cast(Any, task).stepped()[0] for task in tasks}) or ["Handlers that have ended"]
    return (
        f"{', '.join(names)}: a blocking call has held the thread {thread.name} of their handlers "
        f"for {thread.patience:g} s, at {place_of(thread.number)}. {thread.calls - 1} other calls "
        "wait for it. Give the database, or what else the call waits for, a timeout."
    )


def _thread_of(task: "asyncio.Task[Any]") -> _Thread | None:
    """The thread that the handler of a Task has."""
    own = getattr(task, "own_thread", None)
    return own._thread if isinstance(own, OwnThread) else None


_threads = _Threads()


def _begin_again() -> None:
    global _threads
    _threads = _Threads()


# Threads do not follow into a forked process.
os.register_at_fork(after_in_child=_begin_again)
