"""Asynchronous code that a `def` handler calls: it runs on the event loop, and its blocking parts
run in the handler's own thread. So it has the handler's database connection and transaction."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from queue import SimpleQueue
from threading import Lock
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext

from .forked import ChildrenEnd


class _Here(Executor):
    """Runs calls in the thread that waits in `run_until`."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._lock = Lock()
        self._is_over = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Let the waiting thread call `fn`. Raises RuntimeError if it does not wait any more."""
        answer: Future[Any] = Future()
        with self._lock:
            if self._is_over:
                raise RuntimeError(
                    "The handler has returned, and its thread works for other messages: await "
                    "what needs the database before the method returns."
                )
            self._calls.put((answer, partial(fn, *args, **kwargs)))
        return answer

    def run_until(self, done: Future[Any]) -> None:
        """Call what is submitted until `done` has its result."""
        done.add_done_callback(self._end)
        while next_call := self._calls.get():
            _answer(*next_call)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Tasks that are created in the body call blocking code here, also by sync_to_async()."""
        context = ThreadSensitiveContext()
        executors: Any = SyncToAsync.context_to_thread_executor
        executors[context] = self
        tokens = (SyncToAsync.thread_sensitive_context.set(context), _here.set(self))
        try:
            yield
        finally:
            SyncToAsync.thread_sensitive_context.reset(tokens[0])
            _here.reset(tokens[1])

    def _end(self, _: Future[Any]) -> None:
        with self._lock:
            self._is_over = True
            self._calls.put(None)


def wait_on(loop: asyncio.AbstractEventLoop, awaitable: Awaitable[Any]) -> Any:
    """Wait in this thread for `awaitable`, which runs on `loop`."""
    here = _Here()
    with here.in_use():
        future = asyncio.run_coroutine_threadsafe(_settle(awaitable), loop)
    here.run_until(future)
    result, ending = future.result()
    if ending is not None:
        raise ending
    return result


def executor() -> Executor | None:
    """The executor whose thread is that of the `def` handler which waits for this task, if any."""
    return _here.get()


async def _settle(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    # A task that raises these ends the whole event loop, and here they are one handler's.
    try:
        return await awaitable, None
    except (SystemExit, KeyboardInterrupt) as error:
        return None, error


def _answer(answer: Future[Any], call: Callable[[], Any]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        with ChildrenEnd():
            result = call()
    except BaseException as error:
        answer.set_exception(error)
    else:
        answer.set_result(result)


_here: ContextVar[_Here | None] = ContextVar("nats_consumer_here", default=None)
