"""One delivery to a consumer, as the worker would make it."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, sync_to_async

from nats_consumer import lanes
from nats_consumer.current import restored
from nats_consumer.declare.filters import filter_of
from nats_consumer.lanes.blocking import on_event_loop
from nats_consumer.lanes.unfinished import check_finished
from nats_consumer.names import covers, is_wildcard
from nats_consumer.outcomes import Ack, Outcome, as_outcome, raised_outcome
from nats_consumer.payloads.event import event_of
from nats_consumer.publish.drafts import OWN, make_draft
from nats_consumer.run.attempts import limited, timeout_error

from .capture import STREAM
from .message import FakeMessage
from .within import handler_within

if TYPE_CHECKING:
    from nats_consumer.consumer import NatsConsumer


async def adeliver(
    consumer: "type[NatsConsumer] | NatsConsumer",
    data: Any = b"",
    *,
    subject: str | None = None,
    headers: Mapping[str, str] | None = None,
    attempt: int = 1,
) -> Outcome:
    """deliver() for async tests."""
    instance = consumer() if isinstance(consumer, type) else consumer
    message = FakeMessage(
        data,
        subject=_subject(instance, subject or _own_subject(data)),
        headers=headers,
        attempt=attempt,
        stream=instance.stream_name or STREAM,
    )
    failures: list[BaseException] = []
    with ThreadOfTheTest().in_use(), restored():
        try:
            limit = instance.handler_timeout
            handler = handler_within(instance, failures)
            answer = await in_time(limit, handler, message, partial(timeout_error, limit))
            if failures:
                raise failures[0]
        except Exception as error:
            outcome = raised_outcome(error)
            if outcome is None:
                raise
            answer = outcome
    return message.outcome or _outcome_of(answer)


async def in_time(
    limit: float | None,
    handler: Callable[..., Any],
    message: FakeMessage,
    timed_out: Callable[[], TimeoutError],
) -> Any:
    """Call the handler and return its answer. Raises the error that `timed_out` makes if it takes
    longer than `limit` seconds; a plain `def` runs to its end first."""
    began = monotonic()
    answer = await limited(partial(lanes.call, handler, message), limit, timed_out)
    # Nothing can end a thread, so it is told when it is over.
    if limit is not None and monotonic() - began > limit:
        raise timed_out()
    return answer


def in_time_here(
    limit: float | None,
    handler: Callable[..., Any],
    message: FakeMessage,
    timed_out: Callable[[], TimeoutError],
) -> Any:
    """in_time() of a plain `def`, in this thread and without an event loop."""
    began = monotonic()
    answer = in_lane(handler, message)
    if limit is not None and monotonic() - began > limit:
        raise timed_out()
    return answer


def deliver(
    consumer: "type[NatsConsumer] | NatsConsumer",
    data: Any = b"",
    *,
    subject: str | None = None,
    headers: Mapping[str, str] | None = None,
    attempt: int = 1,
) -> Outcome:
    """Call the consumer's handle_message as the worker would, or its handle_batch with a batch of
    one, within the middleware of the settings, and return the outcome: Ack(), or the outcome that
    it returned, raised or settled the message with. Data that it cannot decode raises
    InvalidPayload.

    Blocking code runs in the thread of the test, inside its transaction. Any other exception of
    the handler is raised here, and TimeoutError if it outlasts handler_timeout (a plain `def` runs
    to its end first). handle_error is not called. `data` is anything that publish() takes. The
    `subject` defaults to that of an event, or to the consumer's filter. Raises ValueError for a
    subject that the consumer would never get, and if there is no `subject` and the filter is not a
    single one. On an event loop, use adeliver()."""
    if on_event_loop():
        raise RuntimeError("deliver() cannot wait on an event loop. Use: await adeliver(...)")
    call = async_to_sync(adeliver)
    return call(consumer, data, subject=subject, headers=headers, attempt=attempt)


def _own_subject(data: Any) -> str | None:
    return make_draft(data, OWN, None, None)[0] if event_of(type(data)) else None


def _subject(consumer: "NatsConsumer", given: str | None) -> str:
    filters = filter_of(consumer)
    if given is not None:
        if is_wildcard(given) or not any(covers(each, given) for each in filters):
            asked = " and ".join(filters)
            raise ValueError(f"{consumer.consumer_name} gets {asked} only, and never {given!r}.")
        return given
    if len(filters) > 1 or is_wildcard(filters[0]):
        raise ValueError(
            f"{consumer.consumer_name} gets {' and '.join(filters)}: name the subject of the "
            "message, as in subject='orders.created'."
        )
    return filters[0]


def _outcome_of(answer: object) -> Outcome:
    if outcome := as_outcome(answer):
        return outcome
    check_finished(answer)
    return Ack()


class ThreadOfTheTest(lanes.Threads):
    """The thread in which Django's tests have their transaction."""

    def __init__(self) -> None:
        super().__init__("test", 0)

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await sync_to_async(in_lane)(function, *args, **kwargs)


def in_lane(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a `def` in this thread as in one of a worker."""
    with lanes.thread_lane(async_to_sync(_wait_for)):
        return lanes.finish(function(*args, **kwargs))


async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
