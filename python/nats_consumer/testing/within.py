"""The project's middleware around handlers in tests."""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeAlias

from asgiref.sync import iscoroutinefunction

from nats_consumer import lanes
from nats_consumer.declare.batches import call_of, is_batch
from nats_consumer.declare.declaration import Declaration
from nats_consumer.declare.middleware import Call, middleware
from nats_consumer.run.attempts import Attempts, in_time, timeout_error
from nats_consumer.testing.message import FakeMessage

Judge: TypeAlias = Callable[[Any, BaseException], Awaitable[None]]


def handler_within(consumer: Declaration, failures: list[BaseException]) -> Call:
    """The call of the consumer's handler with one message, within the middleware. The error of a
    failed attempt is put into `failures`. Raises ConfigurationError."""
    layers = middleware()
    handler = call_of(consumer)
    if not layers:
        return handler

    async def ajudge(message: Any, error: BaseException) -> None:  # noqa: ARG001
        failures.append(error)

    def judge(message: Any, error: BaseException) -> None:  # noqa: ARG001
        failures.append(error)

    attempts = Attempts(consumer, ajudge if iscoroutinefunction(handler) else judge)
    if not is_batch(consumer):
        return attempts.within(layers, handler)
    return _in_a_list(attempts.within(layers, _out_of_a_list(handler)))


def attempt_within(consumer: Declaration, judge: Judge) -> Call | None:
    """The call of a whole attempt at one message: `judge` treats one that failed, within the
    middleware. None if there is no middleware, or for batches. Raises ConfigurationError."""
    layers = middleware()
    if not layers or is_batch(consumer):
        return None
    handler, limit = call_of(consumer), consumer.handler_timeout
    if iscoroutinefunction(handler):
        return Attempts(consumer, judge).within(layers, in_time(handler, limit))
    return Attempts(consumer, waiting(judge)).within(layers, _checked(handler, limit))


def waiting(judge: Judge) -> Callable[[Any, BaseException], None]:
    """The same as a `def`, for a thread."""

    def wait(message: Any, error: BaseException) -> None:
        lanes.finish(judge(message, error))

    return wait


def _checked(handler: Call, limit: float | None) -> Call:
    """A `def`, which nothing can end: it raises TimeoutError after its time."""

    def handle(message: FakeMessage) -> Any:
        began = monotonic()
        answer = lanes.finish(handler(message))
        if limit is not None and monotonic() - began > limit:
            raise timeout_error(limit)
        return answer

    return handle


def _out_of_a_list(call: Call) -> Call:
    """Middleware around a batch gets the list of its messages, here a list of one."""
    if not iscoroutinefunction(call):
        return lambda messages: call(messages[0])

    async def acall(messages: list[FakeMessage]) -> Any:
        return await call(messages[0])

    return acall


def _in_a_list(call: Call) -> Call:
    if not iscoroutinefunction(call):
        return lambda message: call([message])

    async def acall(message: FakeMessage) -> Any:
        return await call([message])

    return acall
