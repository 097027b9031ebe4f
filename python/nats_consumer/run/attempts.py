"""Attempts within middleware. A failed one is judged and reported where it failed, so that all
middleware around that place encloses the report and handle_error."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from asgiref.sync import iscoroutinefunction

from nats_consumer import current, lanes
from nats_consumer.current import About, Attempt
from nats_consumer.declare.batches import is_batch
from nats_consumer.declare.declaration import Declaration
from nats_consumer.declare.filters import filter_of
from nats_consumer.declare.middleware import Call, Middleware, within
from nats_consumer.lanes.unfinished import check_finished
from nats_consumer.message import Message
from nats_consumer.outcomes import Ack, DeadLetter, Drop, Outcome, Retry, as_outcome, raised_outcome

logger = logging.getLogger("nats_consumer.handler")

# The answer about a message that is settled: nobody carries it out.
_SETTLED = Retry()
_NAMES: dict[type, str] = {Retry: "retry", DeadLetter: "dead_letter", Drop: "drop"}


class Attempts:
    """The attempts of one consumer. `judge(message, error)` settles a failed one, reports it, and
    asks handle_error; on the event loop it is an `async def`."""

    def __init__(self, consumer: Declaration, judge: Callable[[Any, BaseException], Any]) -> None:
        filters = filter_of(consumer)
        self._about = About(
            consumer.consumer_name,
            "handle_batch" if is_batch(consumer) else "handle_message",
            filters[0] if len(filters) == 1 else None,
            consumer.connection,
        )
        self._judge = judge

    def within(self, layers: Sequence[Middleware], call: Call) -> Call:
        """The call of one attempt: a `def` or an `async def`, as `call` is."""
        if not iscoroutinefunction(call):
            return partial(self._attempt, within(layers, call, self._seal))
        chain = within(layers, call, self._aseal)

        async def attempt(message: Message) -> Any:
            return await self._aattempt(chain, message)

        return attempt

    def batches_within(self, layers: Sequence[Middleware], call: Call) -> Call:
        """The call with the messages of a batch. `call` settles them; it raises nothing. To the
        middleware it raises the last error that a message failed with."""
        if not iscoroutinefunction(call):

            def handle(messages: Sequence[Message]) -> None:
                call(messages)
                _raise_noted()

            return partial(self._batch, within(layers, handle, _unsealed))

        async def ahandle(messages: Sequence[Message]) -> None:
            await call(messages)
            _raise_noted()

        chain = within(layers, ahandle, _unsealed)

        async def attempt(messages: Sequence[Message]) -> None:
            await self._abatch(chain, messages)

        return attempt

    def _batch(self, chain: Call, messages: Sequence[Message]) -> None:
        attempt = current.begin(self._about, messages)
        try:
            ending: BaseException = as_outcome(chain(messages)) or Ack()
        except BaseException as error:
            ending = error
        parts = self._parts(attempt, messages, ending)
        for part in parts:
            if len(parts) > 1:
                self._batch(chain, part)
            else:
                for message in part:
                    self._judge(message, ending)

    async def _abatch(self, chain: Call, messages: Sequence[Message]) -> None:
        attempt = current.begin(self._about, messages)
        try:
            ending: BaseException = as_outcome(await chain(messages)) or Ack()
        except BaseException as error:
            if _is_cancelled(error):
                raise
            ending = error
        parts = self._parts(attempt, messages, ending)
        for part in parts:
            if len(parts) > 1:
                await self._abatch(chain, part)
            else:
                for message in part:
                    await self._judge(message, ending)

    def _parts(
        self, attempt: Attempt, messages: Sequence[Message], ending: BaseException
    ) -> list[list[Message]]:
        """The messages that the handler did not get: in one part, if `ending` is theirs, or in
        halves, down to the one that a middleware fails at."""
        left = [message for message in messages if not message.is_acked]
        is_error = _fault(ending) is not None
        if not left:
            if is_error and ending is not attempt.error:
                self._tell(ending, "")
            return []
        if len(left) == 1 or not is_error:
            return [left]
        half = len(left) // 2
        return [left[:half], left[half:]]

    def _attempt(self, chain: Call, message: Message) -> Any:
        attempt = current.begin(self._about, message)
        try:
            return _answer(attempt, chain(message))
        except BaseException:
            if attempt.error is None or attempt.is_judged_elsewhere:
                raise
        return _SETTLED

    async def _aattempt(self, chain: Call, message: Message) -> Any:
        attempt = current.begin(self._about, message)
        try:
            return _answer(attempt, await chain(message))
        except BaseException as error:
            if attempt.error is None or _is_cancelled(error):
                raise
        return _SETTLED

    def _seal(self, call: Call, path: str) -> Call:
        def sealed(message: Message) -> Any:
            try:
                return _finished(call(message))
            except BaseException as error:
                fault = _fault(error)
                if fault is None:
                    raise
                if self._is_first(fault, path):
                    self._judge(message, fault)
                if fault is error:
                    raise
                raise fault from error

        return sealed

    def _aseal(self, call: Call, path: str) -> Call:
        async def sealed(message: Message) -> Any:
            try:
                return _finished(await call(message))
            except BaseException as error:
                fault = None if _is_cancelled(error) else _fault(error)
                if fault is None:
                    raise
                if self._is_first(fault, path):
                    await self._judge(message, fault)
                if fault is error:
                    raise
                raise fault from error

        return sealed

    def _is_first(self, error: BaseException, path: str) -> bool:
        """Whether the attempt fails here and now. What a middleware makes of an error that was
        judged is only told."""
        attempt = current.current_attempt()
        if attempt is None or error is attempt.error:
            return False
        was_judged = attempt.error is not None
        attempt.error = error
        if was_judged:
            self._tell(error, path)
        return not was_judged

    def _tell(self, error: BaseException, path: str) -> None:
        logger.error(
            "%s: %s failed after the attempt was judged.",
            self._about.consumer,
            f"the middleware {path}" if path else "a middleware",
            exc_info=error,
            extra={
                "consumer": self._about.consumer,
                "handler": self._about.handler,
                "error_type": type(error).__name__,
            },
        )


def in_time(call: Call, limit: float | None) -> Call:
    """An `async def` that is cancelled after `limit` seconds; then it raises TimeoutError."""
    if limit is None:
        return call

    def late() -> TimeoutError:
        if attempt := current.current_attempt():
            attempt.is_late = True
        return timeout_error(limit)

    async def timed(message: Message) -> Any:
        return await limited(partial(call, message), limit, late)

    return timed


async def limited(
    call: Callable[[], Awaitable[Any]], limit: float | None, late: Callable[[], TimeoutError]
) -> Any:
    """Return what `call` returns. After `limit` seconds it is cancelled, and the error that `late`
    makes is raised, whatever the call made of its cancellation."""
    cause: BaseException | None = None
    answer = None
    try:
        async with asyncio.timeout(limit) as timer:
            answer = await call()
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        if not timer.expired():
            raise
        cause = lanes.not_started(error) if isinstance(error, TimeoutError) else error
    if timer.expired():
        raise late() from cause
    return answer


def timeout_error(limit: float | None) -> TimeoutError:
    """The error of a handler that ran longer than its limit, in seconds."""
    return TimeoutError(timeout_text(limit))


def timeout_text(limit: float | None) -> str:
    """The text of that error."""
    return f"timed out after {limit:g} s, the consumer's handler_timeout"


def _unsealed(call: Call, path: str) -> Call:  # noqa: ARG001
    return call


def _raise_noted() -> None:
    attempt = current.current_attempt()
    if attempt is not None and attempt.error is not None:
        raise attempt.error


def _answer(attempt: Attempt, answer: Any) -> Any:
    # An attempt that was judged is settled, whatever a middleware answers for it.
    is_settled = attempt.error is not None and not attempt.is_judged_elsewhere
    return _SETTLED if is_settled else answer


def _finished(answer: Any) -> Any:
    outcome = None if answer is None else as_outcome(answer)
    if answer is not None and outcome is None:
        check_finished(answer)
    _note_outcome(outcome)
    return answer


def _note_outcome(outcome: Outcome | None) -> None:
    attempt = current.current_attempt()
    # Of an attempt that was judged, the outcome is known.
    if attempt is None or attempt.error is not None or isinstance(attempt.message, Sequence):
        return
    is_settled = outcome is None and attempt.message.is_acked
    attempt.outcome = "settled" if is_settled else name_of(outcome)


def name_of(outcome: Outcome | None) -> str:
    """The outcome in one word, as the metrics have it; None is an Ack."""
    return _NAMES.get(type(outcome), "ack")


def _fault(error: BaseException) -> BaseException | None:
    """The error that the attempt fails with; None if it is an outcome."""
    if isinstance(error, GeneratorExit):
        return None
    try:
        outcome = raised_outcome(error)
    except RuntimeError as refused:
        return refused
    if outcome is None:
        return error
    _note_outcome(outcome)
    return None


def _is_cancelled(error: BaseException) -> bool:
    """Whether somebody ends the task, and with it the attempt."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
