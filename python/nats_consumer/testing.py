"""Test support without a server: deliver messages to consumers, capture published ones."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, sync_to_async

from . import lanes
from .api import PubAck
from .declare.filters import filter_of
from .declare.options import message_handler
from .exceptions import MessageAlreadySettled
from .lanes.blocking import on_event_loop
from .lanes.unfinished import check_finished
from .names import covers, is_wildcard
from .outcomes import Ack, Drop, Outcome, Retry, raised_outcome
from .publish.drafts import MSG_ID, Draft, make_draft
from .publish.publisher import replaced_by

if TYPE_CHECKING:
    from ._native import Drafts
    from .consumer import NatsConsumer

_STREAM = "captured"


@dataclass(frozen=True)
class Published:
    """A captured message."""

    subject: str
    data: bytes
    headers: Mapping[str, str] | None = None

    @property
    def msg_id(self) -> str | None:
        """The message id it was published with."""
        return (self.headers or {}).get(MSG_ID)

    def json(self) -> Any:
        """The data, read as JSON."""
        return json.loads(self.data)


@contextmanager
def capture_published() -> Iterator[list[Published]]:
    """In the body, publish(), publish_many(), their async twins and publish_on_commit() of this
    process send nothing and append to the list that this gives. They raise for what cannot be
    sent, and succeed with everything else."""
    captured: list[Published] = []
    with replaced_by(_Recorder(captured)):
        yield captured


class FakeMessage:
    """A message for a handler, without a server; data as for publish(). `outcome` is how it was
    settled, or None; `dead_letters` are the reasons of send_to_dlq()."""

    def __init__(
        self,
        data: Any = b"",
        *,
        subject: str,
        headers: Mapping[str, str] | None = None,
        attempt: int = 1,
        stream: str = _STREAM,
    ) -> None:
        self.subject, self.data, self.headers = make_draft(subject, data, headers, None)
        self.header = self.headers
        self.reply = ""
        self.attempt = attempt
        self.metadata = SimpleNamespace(
            sequence=SimpleNamespace(stream=1, consumer=attempt),
            num_delivered=attempt,
            num_pending=0,
            timestamp=datetime.now(UTC),
            stream=stream,
            consumer=_STREAM,
            domain=None,
        )
        self.outcome: Outcome | None = None
        self.dead_letters: list[str] = []

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """That of nats-py's messages where nats-py is loaded, as for every message of a handler."""
        theirs: type | None = getattr(sys.modules.get("nats.aio.msg"), "Msg", None)
        return theirs or type(self)

    @property
    def is_acked(self) -> bool:
        """Whether it is settled."""
        return self.outcome is not None

    _ackd = is_acked

    def ack(self) -> Awaitable[None]:
        """Settle it as done. This and the others raise MessageAlreadySettled the second time."""
        return self._settle(Ack())

    def ack_sync(self, timeout: float = 1.0) -> Awaitable[None]:  # noqa: ARG002
        """As ack()."""
        return self._settle(Ack())

    def nak(self, delay: float | None = None) -> Awaitable[None]:
        """Hand it back; `delay` is in seconds."""
        return self._settle(Retry(delay))

    def term(self, reason: str | None = None) -> Awaitable[None]:
        """Discard it."""
        return self._settle(Drop(reason or ""))

    def in_progress(self) -> Awaitable[None]:
        """Does nothing."""
        return _Done()

    def copy_to_dlq(self, reason: str) -> Awaitable[None]:
        """Remember the reason."""
        self.dead_letters.append(reason)
        return _Done()

    def _settle(self, outcome: Outcome) -> Awaitable[None]:
        if self.is_acked:
            raise MessageAlreadySettled
        self.outcome = outcome
        return _Done()


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
        subject=_subject(instance, subject),
        headers=headers,
        attempt=attempt,
        stream=instance.stream_name or _STREAM,
    )
    with _ThreadOfTheTest().in_use():
        try:
            answer = await _in_time(instance.handler_timeout, message_handler(instance), message)
        except Exception as error:
            outcome = raised_outcome(error)
            if outcome is None:
                raise
            answer = outcome
    return message.outcome or _outcome_of(answer)


async def _in_time(limit: float | None, handler: Callable[..., Any], message: FakeMessage) -> Any:
    began = monotonic()
    try:
        async with asyncio.timeout(limit) as timer:
            answer = await lanes.call(handler, message)
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise _timed_out(limit) from error
    # Nothing can end a thread, so it is told when it is over.
    if limit is not None and monotonic() - began > limit:
        raise _timed_out(limit)
    return answer


def _timed_out(limit: float | None) -> TimeoutError:
    return TimeoutError(f"timed out after {limit:g} s, the consumer's handler_timeout")


def deliver(
    consumer: "type[NatsConsumer] | NatsConsumer",
    data: Any = b"",
    *,
    subject: str | None = None,
    headers: Mapping[str, str] | None = None,
    attempt: int = 1,
) -> Outcome:
    """Call the consumer's handle_message as the worker would, and return what becomes of the
    message: Ack(), or the outcome that it returned, raised or settled the message with.

    Blocking code runs in the thread of the test, inside its transaction. What else the handler
    raises is raised here, and TimeoutError if it outlasts handler_timeout (a plain `def` runs to
    its end first); handle_error is not called. `data` is what publish() takes; without a
    `subject` it is the one that the consumer asks for. Raises ValueError for a subject that the
    consumer would never get, or if it asks for several. On an event loop, use adeliver()."""
    if on_event_loop():
        raise RuntimeError("deliver() cannot wait on an event loop. Use: await adeliver(...)")
    call = async_to_sync(adeliver)
    return call(consumer, data, subject=subject, headers=headers, attempt=attempt)


def _subject(consumer: "NatsConsumer", given: str | None) -> str:
    filters = filter_of(consumer)
    if given is not None:
        if not any(covers(each, given) for each in filters):
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
    if isinstance(answer, type) and issubclass(answer, Outcome):
        return answer()
    if isinstance(answer, Outcome):
        return answer
    check_finished(answer)
    return Ack()


class _ThreadOfTheTest(lanes.Threads):
    """Where Django's tests have their transaction."""

    def __init__(self) -> None:
        super().__init__("test", 0)

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await sync_to_async(_in_lane)(function, *args, **kwargs)


def _in_lane(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with lanes.thread_lane(async_to_sync(_wait_for)):
        return lanes.finish(function(*args, **kwargs))


async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class _Recorder:
    """Stands in for the engine's publisher."""

    def __init__(self, captured: list[Published]) -> None:
        self._captured = captured

    def publish(self, draft: Draft, timeout: float) -> PubAck:  # noqa: ARG002
        from . import _native

        _native.check_draft(draft)
        self._captured.append(Published(*draft))
        return PubAck(stream=_STREAM, seq=len(self._captured))

    def nudge(self, subject: str) -> None:
        pass

    async def apublish(self, draft: Draft, timeout: float) -> PubAck:  # noqa: ASYNC109
        return self.publish(draft, timeout)

    def publish_many(
        self, drafts: "Drafts", timeout: float
    ) -> tuple[list[PubAck], list[tuple[int, Exception]]]:
        return [self.publish(drafts[index], timeout) for index in range(len(drafts))], []


class _Done:
    """Awaitable on any loop or none, like what the engine's messages return."""

    is_done_already = True

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()
