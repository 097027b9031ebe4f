"""The two lanes in which a project's code runs: the event loop, and threads of our own. A call can
cross from either to the other."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from inspect import isawaitable
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.db import close_old_connections

from . import here
from .database import FreshConnections, close_connections
from .forked import ChildrenEnd

# A thread that is not called for this long closes its connections, as those of the engine do.
_IDLE_SECONDS = 1.0
# After this time it ends.
_END_SECONDS = 10.0
# Errors may be causes of each other, in a circle.
_MOST_CAUSES = 10


class _Lane(threading.local):
    wait: Callable[[Awaitable[Any]], Any] | None = None


_lane = _Lane()


class CallNotStarted(Exception):  # noqa: N818 - it is the cause of an error
    """The cause of a cancelled call that no thread has begun, because calls which outlived their
    handlers hold threads. It says nothing about the message."""


def not_started(error: BaseException) -> CallNotStarted | None:
    """The call that no thread has begun, if the error comes of one."""
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if cause is None or isinstance(cause, CallNotStarted):
            return cause
        cause = cause.__cause__
    return None


def enter_thread_lane(loop: asyncio.AbstractEventLoop) -> None:
    """Mark this thread as one that runs plain `def` code for the consumers of `loop`."""
    _lane.wait = partial(here.wait_on, loop)


@contextmanager
def thread_lane(wait: Callable[[Awaitable[Any]], Any]) -> Iterator[None]:
    """In the body, this is such a thread; `wait` waits for what is awaitable."""
    before, _lane.wait = _lane.wait, wait
    try:
        yield
    finally:
        _lane.wait = before


def in_thread_lane() -> bool:
    """Whether this is such a thread."""
    return _lane.wait is not None


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function`, `async def` or `def`, from either lane. On the event loop the answer is an
    awaitable; in a thread lane it is the result."""
    if in_thread_lane():
        return finish(function(*args, **kwargs))
    if iscoroutinefunction(function):
        return function(*args, **kwargs)
    return _in_thread(function, *args, **kwargs)


def finish(result: Any) -> Any:
    """In a thread lane: wait for `result` on the event loop if it is awaitable."""
    if not isawaitable(result) or _lane.wait is None:
        return result
    return _lane.wait(result)


async def _in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if executor := here.executor():
        called = partial(copy_context().run, _called_here, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(executor, called)
    threads = _threads.get()
    if threads is not None and not threads.has_ended:
        return await threads.call(function, *args, **kwargs)
    loop = asyncio.get_running_loop()
    return await asyncio.to_thread(_detour, loop, function, *args, **kwargs)


def _called_here(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return finish(function(*args, **kwargs))


def _detour(
    loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    enter_thread_lane(loop)
    try:
        with FreshConnections():
            return finish(function(*args, **kwargs))
    finally:
        # The thread goes back to the loop's pool, where others use it.
        close_connections()
        _lane.wait = None


class Threads:
    """A thread lane for the blocking code that one consumer calls from the event loop: up to
    `count` threads, each started when it is needed, and ended when it is idle. They keep their
    database connections, as Django's CONN_MAX_AGE says."""

    def __init__(
        self,
        name: str,
        count: int,
        note_held: Callable[[list[int]], Callable[[], None]] = lambda _: _do_nothing,
    ) -> None:
        """`note_held` is called with the numbers of the threads when calls that outlived their
        handlers hold all of them, and with none when one is free again. It waits for nothing: the
        function that it returns may, as logging does."""
        self.has_ended = False
        self._name = name
        self._count = count
        self._note_held = note_held
        # The calls that outlived their handlers.
        self._left = 0
        self._lock = Lock()
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Make the code of the body, and the tasks made there, call blocking code in these."""
        token = _threads.set(self)
        try:
            yield
        finally:
            _threads.reset(token)

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Wait until one of the threads has called the function, in this context."""
        answer: Future[Any] = Future()
        self._calls.put((answer, partial(copy_context().run, function, *args, **kwargs)))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._count:
            self._start_one(asyncio.get_running_loop())
        try:
            return await asyncio.wrap_future(answer)
        except asyncio.CancelledError as error:
            if answer.cancel():
                if self._left:
                    raise error from CallNotStarted("no thread was free for the call")
            elif not answer.done():
                self._add_left(1)
                answer.add_done_callback(lambda _: self._add_left(-1))
            raise

    def end(self) -> None:
        """Let each thread end when it has nothing more to do."""
        self.has_ended = True
        for _ in self._threads:
            self._calls.put(None)

    def alive(self) -> list[str]:
        """The names of the threads that have not ended."""
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _add_left(self, number: int) -> None:
        with self._lock:
            were_held = self._left >= self._count
            self._left += number
            are_held = self._left >= self._count
            if are_held == were_held or self.has_ended:
                return
            threads = [each.ident for each in self._threads if each.ident is not None]
            tell = self._note_held(threads if are_held else [])
        tell()

    def _start_one(self, loop: asyncio.AbstractEventLoop) -> None:
        name = f"{self._name}-{len(self._threads) + 1}"
        # A call that never returns must not keep the process from ending.
        thread = threading.Thread(target=self._serve, args=(loop,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        enter_thread_lane(loop)
        try:
            while next_call := self._next():
                _answer(*next_call)
        finally:
            close_connections()

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        try:
            return self._calls.get_nowait()
        except Empty:
            self._idle.release()
        try:
            return self._calls.get(timeout=_IDLE_SECONDS)
        except Empty:
            close_old_connections()
        try:
            return self._calls.get(timeout=_END_SECONDS)
        except Empty:
            return None if self._may_end() else self._calls.get()

    def _may_end(self) -> bool:
        """Whether the calling thread is still idle; then it does not count any more."""
        own = threading.current_thread()
        # First, so that a call that finds no idle thread finds room for another one.
        self._threads.remove(own)
        if self._idle.acquire(blocking=False):
            return True
        self._threads.append(own)
        return False


def _answer(answer: Future[Any], call: Callable[[], Any]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        with FreshConnections(), ChildrenEnd():
            result = finish(call())
    except BaseException as error:
        answer.set_exception(error)
    else:
        answer.set_result(result)


# By context: a delivery inherits it from the task that it runs in.
_threads: ContextVar[Threads | None] = ContextVar("nats_consumer_threads", default=None)


def _do_nothing() -> None:
    """For threads whose owner need not know when they are held."""
