"""Middleware for tests: it writes down what happens around it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import MiddlewareNotUsed
from django.utils.decorators import async_only_middleware, sync_and_async_middleware

from nats_consumer import Ack, Drop

HERE = __name__

seen: list[Any] = []
"""What has happened, in its order."""
is_inside: list[str] = []
"""The middleware whose bodies run now."""
acts: dict[str, Callable[[Any], Any]] = {}
"""What the middleware `acting` does before and after the call."""


def forget() -> None:
    """Begin again."""
    seen.clear()
    is_inside.clear()
    acts.clear()


def handler(how: str, work: Callable[[Any], Any]) -> Callable[..., Any]:
    """A handle_message that does `work`. An exception that `work` returns is raised."""

    def handle(self: Any, message: Any) -> Any:
        answer = work(message)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def ahandle(self: Any, message: Any) -> Any:
        return handle(self, message)

    return ahandle if how == "async" else handle


@contextmanager
def noted(name: str) -> Iterator[None]:
    seen.append(f"{name} begins")
    is_inside.append(name)
    try:
        yield
    except BaseException as error:
        seen.append(f"{name} sees {type(error).__name__}")
        raise
    else:
        seen.append(f"{name} ends")
    finally:
        is_inside.remove(name)


def around(name: str) -> Callable[[Any], Any]:
    @sync_and_async_middleware
    def factory(handle: Any) -> Any:
        if iscoroutinefunction(handle):

            async def amiddleware(message: Any) -> Any:
                with noted(name):
                    return await handle(message)

            return amiddleware

        def middleware(message: Any) -> Any:
            with noted(name):
                return handle(message)

        return middleware

    return factory


outer = around("outer")
inner = around("inner")


@sync_and_async_middleware
def acting(handle: Any) -> Any:
    """Do what the test wants: `before` and `after` may raise, `instead` answers."""

    def act(when: str, message: Any) -> Any:
        return acts[when](message) if when in acts else None

    async def amiddleware(message: Any) -> Any:
        act("before", message)
        answer = act("instead", message) or await handle(message)
        act("after", message)
        return answer

    def middleware(message: Any) -> Any:
        act("before", message)
        answer = act("instead", message) or handle(message)
        act("after", message)
        return answer

    return amiddleware if iscoroutinefunction(handle) else middleware


@sync_and_async_middleware
def swallowing(handle: Any) -> Any:
    """Hide every exception."""

    async def amiddleware(message: Any) -> Any:
        try:
            return await handle(message)
        except Exception:
            return Drop("hidden")

    def middleware(message: Any) -> Any:
        try:
            return handle(message)
        except Exception:
            return Ack()

    return amiddleware if iscoroutinefunction(handle) else middleware


@sync_and_async_middleware
def failing_at_errors(handle: Any) -> Any:
    """Make another exception of each."""

    async def amiddleware(message: Any) -> Any:
        try:
            return await handle(message)
        except ValueError:
            raise KeyError("of the middleware") from None

    def middleware(message: Any) -> Any:
        try:
            return handle(message)
        except ValueError:
            raise KeyError("of the middleware") from None

    return amiddleware if iscoroutinefunction(handle) else middleware


def blocking(handle: Any) -> Any:
    """Django's default: for `def` alone."""
    return lambda message: handle(message)


@async_only_middleware
def loops(handle: Any) -> Any:
    async def middleware(message: Any) -> Any:
        return await handle(message)

    return middleware


@sync_and_async_middleware
def unused(handle: Any) -> Any:
    raise MiddlewareNotUsed


@sync_and_async_middleware
def passing(handle: Any) -> Any:
    return handle


class Counting:
    """A class, as Django's older middleware is: one object for each consumer."""

    sync_capable = True
    made = 0
    threads: set[str] = set()

    def __init__(self, handle: Any) -> None:
        Counting.made += 1
        self.handle = handle

    def __call__(self, message: Any) -> Any:
        Counting.threads.add(threading.current_thread().name)
        return self.handle(message)
