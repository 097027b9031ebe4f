"""Calls from the engine: `async def` handlers on the event loop, `def` handlers in threads."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import iscoroutinefunction

from nats_consumer import current, lanes
from nats_consumer.declare.arguments import message_call
from nats_consumer.declare.batches import BatchCall, Item, common_errors, handler_of, is_batch
from nats_consumer.declare.declaration import Declaration
from nats_consumer.declare.middleware import Call, Middleware, middleware
from nats_consumer.declare.once import batch_handled_once, handled_once
from nats_consumer.declare.retry import retry_policy
from nats_consumer.exceptions import InvalidPayload
from nats_consumer.lanes import handler_threads, stall
from nats_consumer.lanes.database import FreshConnections
from nats_consumer.lanes.forked import ChildrenEnd
from nats_consumer.lanes.own_thread import leave_thread
from nats_consumer.lanes.pool import BatchTask
from nats_consumer.lanes.unfinished import check_finished
from nats_consumer.logs import fields_of, method_of, text_of
from nats_consumer.message import Message
from nats_consumer.outcomes import (
    Ack,
    DeadLetter,
    Drop,
    ErrorAckBehavior,
    Outcome,
    Retry,
    as_outcome,
    raised_outcome,
)
from nats_consumer.settings import max_threads
from nats_consumer.terminal import visible

from .attempts import Attempts, in_time, limited, name_of, timeout_error
from .batches import Answer, Batches, BatchTimeoutError, Calls

if TYPE_CHECKING:
    from nats_consumer._native import Consumption, Turn

logger = logging.getLogger("nats_consumer.handler")
consumer_logger = logging.getLogger("nats_consumer.consumer")

# The reason of such dead letters and drops.
_UNDECODABLE = "cannot be decoded"

_FAILED = "%s: attempt %d of %d at message %d of %s failed with %s; %s."
_FAILED_AGAIN = "%s: attempt %d after the limit of %d at message %d of %s failed with %s; %s."
# So the engine's text about a retry begins.
_COMES_AGAIN = "the next attempt"
# What follows a last attempt, in the words of the metrics. A message that handle_error was to
# settle, and did not, is handed back.
_FINAL_NAMES = {
    ErrorAckBehavior.ACK: "ack",
    ErrorAckBehavior.NAK: "retry",
    ErrorAckBehavior.DEAD_LETTER: "dead_letter",
    ErrorAckBehavior.TERM: "drop",
    ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR: "retry",
}


class Dispatch(ABC):
    """The calls from the engine into one consumer. `handle`, `failed` and `log` are what
    `_native.consume` takes."""

    handle: Callable[[Message], Any]
    failed: Callable[[Message, Exception], Any]
    interruption: ClassVar[str]
    """The text for handlers that still run when a drain's time is over."""
    keeps_time = False
    """Whether it ends handlers on the event loop that run too long, and not the engine."""
    in_threads = False
    """Whether the engine calls handlers in threads, and not on the event loop."""
    consumption: "Consumption"
    """Known from the start on."""

    def __init__(self, consumer: Declaration, layers: Sequence[Middleware]) -> None:
        self._name = consumer.consumer_name
        self._behavior = consumer.handle_error_ack_behavior
        self._invalid_behavior = consumer.invalid_ack_behavior
        policy = retry_policy(consumer)
        self._attempts = policy.max_attempts
        self._final_delay = policy.max_delay
        self._dead_letters = f"{consumer.stream_name}-dlq"
        self._handle_error: Callable[..., Any] | None = getattr(consumer, "handle_error", None)
        self._layers = layers
        self._consumer = consumer
        self._handler = "handle_batch" if is_batch(consumer) else "handle_message"

    def start(self, consumption: "Consumption") -> None:
        """Let the consumer take messages. Call it on the event loop."""
        self.consumption = consumption
        self._start(consumption)

    @abstractmethod
    def _start(self, consumption: "Consumption") -> None:
        """Let the consumer take messages."""

    @abstractmethod
    def end(self) -> None:
        """Let the threads end, when the consumption has ended."""

    @abstractmethod
    def stuck_threads(self) -> list[str]:
        """The names of the threads that still run a handler."""

    def log(self, message: Message, error: Exception, follows: str) -> None:
        """Report a failed attempt that is not the last one."""
        outcome = "retry" if follows.startswith(_COMES_AGAIN) else None
        if attempt := current.current_attempt():
            attempt.outcome = outcome or "settled"
        extra = self._fields(message, error, outcome)
        template, values = self._line(message, error, follows)
        logger.warning(template, *values, extra=extra)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "%s: the traceback of attempt %d at message %d of %s.",
                self._name,
                message.attempt,
                message.metadata.sequence.stream,
                visible(message.subject),
                exc_info=error,
                extra=extra,
            )

    def _log_failure(self, message: Message, error: Exception) -> None:
        # Handed back, it may fail without end: its traceback is shown once. That of a payload, of
        # which a new publisher sends many, says nothing more than the line.
        is_shown = message.attempt <= self._attempts and not isinstance(error, InvalidPayload)
        template, values = self._line(message, error, self._what_follows(message, error))
        logger.error(
            template,
            *values,
            exc_info=error if is_shown else None,
            extra=self._fields(message, error, _FINAL_NAMES[self._last_word(error)[1]]),
        )

    def _fields(
        self, message: Message, error: BaseException, outcome: str | None
    ) -> dict[str, Any]:
        return fields_of(message) | {
            "consumer": self._name,
            "handler": method_of(message) or self._handler,
            "outcome": outcome,
            "error_type": type(error).__name__,
        }

    def _exhaust(self, message: Message, error: Any, answer: Outcome | None) -> None:
        """Carry out the final word. What `failed` itself raises is a mistake of this package: then
        there is no answer."""
        if attempt := current.current_attempt():
            attempt.outcome = self._name_of_final(message, answer)
        self.consumption.exhaust(message, error, answer)

    def _name_of_final(self, message: Message, answer: Outcome | None) -> str:
        if message.is_acked:
            return "settled"
        return name_of(answer) if answer else _FINAL_NAMES[self._behavior]

    def _line(
        self, message: Message, error: BaseException, follows: str
    ) -> tuple[str, tuple[object, ...]]:
        """A template, by which lines can be grouped, and its values."""
        return _FAILED if message.attempt <= self._attempts else _FAILED_AGAIN, (
            self._name,
            message.attempt,
            self._attempts,
            message.metadata.sequence.stream,
            visible(message.subject),
            visible(_described(error)),
            follows,
        )

    def _what_follows(self, message: Message, error: Exception) -> str:
        if message.is_acked:
            return "the handler had settled it"
        endings = {
            ErrorAckBehavior.ACK: "it is acknowledged",
            ErrorAckBehavior.NAK: f"it is redelivered in {self._final_delay:g} s",
            ErrorAckBehavior.DEAD_LETTER: f"it is stored in {self._dead_letters}",
            ErrorAckBehavior.TERM: "it is dropped",
            ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR: "it is left to handle_error",
        }
        attribute, behavior = self._last_word(error)
        ending = f"{endings[behavior]} ({attribute}={behavior.name})"
        is_left = behavior is ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
        if self._handle_error is None or is_left:
            return ending
        return f"unless handle_error decides otherwise, {ending}"

    def _last_word(self, error: Exception) -> tuple[str, ErrorAckBehavior]:
        """Return the attribute that decides about a message after this error, with its value."""
        if isinstance(error, InvalidPayload):
            return "invalid_ack_behavior", self._invalid_behavior
        return "handle_error_ack_behavior", self._behavior

    def _invalid(self) -> Outcome:
        outcomes = {
            ErrorAckBehavior.ACK: Ack(),
            ErrorAckBehavior.NAK: Retry(after=self._final_delay),
            ErrorAckBehavior.TERM: Drop(_UNDECODABLE),
        }
        return outcomes.get(self._invalid_behavior, DeadLetter(_UNDECODABLE))

    def _final_word(
        self, message: Message, error: Exception, answer: Outcome | None
    ) -> Outcome | None:
        """Return the decision after handle_error, or None to leave it to the engine, which goes
        by handle_error_ack_behavior."""
        if answer is not None:
            return answer
        if isinstance(error, InvalidPayload):
            return None if message.is_acked else self._invalid()
        implemented = self._behavior is ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
        if not implemented or message.is_acked:
            return None
        logger.warning(
            "%s: handle_error_ack_behavior leaves settling to handle_error, which settled nothing. "
            "The message is redelivered in %g s. Call message.ack(), nak() or term() there.",
            self._name,
            self._final_delay,
            extra=self._fields(message, error, "retry"),
        )
        return Retry(after=self._final_delay)

    def _after_raising_handle_error(
        self, message: Message, error: Exception, raised: BaseException
    ) -> Outcome | None:
        try:
            outcome = raised_outcome(raised)
        except RuntimeError as refused:  # an Ack whose work was rolled back
            outcome, raised = None, refused
        if outcome is not None:
            return outcome
        logger.error(
            "%s: handle_error failed.",
            self._name,
            exc_info=raised,
            extra=self._fields(message, error, None),
        )
        # What handle_error was to do is not done: hand the message back rather than let it go.
        if message.is_acked or self._last_word(error)[1] is ErrorAckBehavior.DEAD_LETTER:
            return self._final_word(message, error, None)
        return Retry(after=self._final_delay)


class LoopDispatch(Dispatch):
    """Calls of an `async def handle_message`: the engine steps its coroutine in asyncio Tasks."""

    interruption = "cancelled and handed back"

    def __init__(
        self, consumer: Declaration, threads: int, layers: Sequence[Middleware] = ()
    ) -> None:
        super().__init__(consumer, layers)
        # For what is a plain `def` beside it: handle_error, and the methods of a ConsumerHandler.
        self._threads = lanes.Threads(self._name, threads, self._note_held)
        self._timeout = consumer.handler_timeout
        # The method itself, if it takes the message: one coroutine, and no wrapper around it.
        self.handle = self._within_middleware(self._call_of(consumer))
        self.failed = self._failed

    def _call_of(self, consumer: Declaration) -> Callable[..., Any]:
        return message_call(consumer)

    def _within_middleware(self, call: Call) -> Call:
        if not self._layers:
            return call
        self.keeps_time = True
        attempts = Attempts(self._consumer, self._judge)
        return attempts.within(self._layers, in_time(call, self._timeout))

    async def _judge(self, message: Message, error: Any) -> None:
        attempt = current.current_attempt()
        is_late = attempt is not None and attempt.is_late
        if is_late:
            leave_thread()  # It may still do what the handler waited for.
        if not self.consumption.raised(message, error, is_late):
            return
        answer, second = await _answered(partial(self._failed, message, error))
        self._exhaust(message, error, answer if second is None else None)

    def _start(self, consumption: "Consumption") -> None:
        with self._threads.in_use():
            consumption.start_tasks()

    def _note_held(self, threads: list[int]) -> None:
        self.consumption.hold_up(bool(threads))
        extra = {"consumer": self._name}
        if threads:
            consumer_logger.error("%s", stall.of_calls(self._name, threads), extra=extra)
        else:
            consumer_logger.info(
                "%s: a thread is free again, so it takes messages again.", self._name, extra=extra
            )

    def end(self) -> None:
        """Let the threads end that blocking code ran in."""
        self._threads.end()

    def stuck_threads(self) -> list[str]:
        """The names of the threads that still run blocking code."""
        return self._threads.alive()

    async def _failed(self, message: Message, error: Exception) -> Outcome | None:
        self._log_failure(message, error)
        answer = None
        try:
            if self._handle_error is not None:
                call = partial(lanes.call, self._handle_error, message, error, message.attempt)
                late = partial(timeout_error, self._timeout)
                answer = _word(await limited(call, self._timeout, late))
        except asyncio.CancelledError:
            raise
        except BaseException as raised:
            return self._after_raising_handle_error(message, error, raised)
        return self._final_word(message, error, answer)


class ThreadDispatch(Dispatch):
    """Calls of a `def handle_message`: in threads of the process, where it may block and use the
    ORM."""

    in_threads = True
    interruption = "handed back; their threads continue until the process ends"

    def __init__(self, consumer: Declaration, layers: Sequence[Middleware] = ()) -> None:
        super().__init__(consumer, layers)
        self._call = self._handle_message = self._call_of(consumer)
        self._timeout = consumer.handler_timeout
        self._has_timeout = self._timeout is not None
        self._is_started = False
        self.handle = self._handle
        self.failed = self._failed
        if self._layers:
            self._wrap()

    def _call_of(self, consumer: Declaration) -> Callable[..., Any]:
        return handled_once(consumer, message_call(consumer))

    def _wrap(self) -> None:
        attempts = Attempts(self._consumer, self._judge)
        self._handle_message = attempts.within(self._layers, self._call_in_time)

    def _call_in_time(self, message: Message) -> Any:
        answer = lanes.finish(self._call(message))
        if self._has_timeout and not self.consumption.handler_ended(message):
            raise timeout_error(self._timeout)
        return answer

    def _judge(self, message: Message, error: Any) -> None:
        if self._has_timeout and not self.consumption.handler_ended(message):
            if attempt := current.current_attempt():
                attempt.is_judged_elsewhere = True
        elif self.consumption.raised(message, error):
            answer, second = _called(partial(self._failed, message, error))
            self._exhaust(message, error, answer if second is None else None)

    def _start(self, consumption: "Consumption") -> None:
        enter = handler_threads.enter(self._name, asyncio.get_running_loop())
        consumption.start_threads(enter, max_threads())
        self._is_started = True

    def end(self) -> None:
        """Do nothing: the threads are those of the process."""

    def stuck_threads(self) -> list[str]:
        """The names of the threads that still run a handler."""
        return self.consumption.busy_threads() if self._is_started else []

    def _handle(self, message: Message) -> Any:
        with FreshConnections(), ChildrenEnd():
            return lanes.finish(self._handle_message(message))

    def _failed(self, message: Message, error: Exception) -> Outcome | None:
        self._log_failure(message, error)
        answer = None
        try:
            if self._handle_error is not None:
                with FreshConnections(), ChildrenEnd():
                    said = lanes.call(self._handle_error, message, error, message.attempt)
                answer = _word(said)
        except BaseException as raised:
            return self._after_raising_handle_error(message, error, raised)
        return self._final_word(message, error, answer)


class BatchLoopDispatch(LoopDispatch):
    """Calls of an `async def handle_batch`: a Task for each batch."""

    def __init__(
        self, consumer: Declaration, threads: int, layers: Sequence[Middleware] = ()
    ) -> None:
        super().__init__(consumer, threads, layers)
        self._count = threads
        self._running: set[BatchTask] = set()
        self._lanes: list[asyncio.Task[None]] = []
        self._is_cancelled = False

    def _call_of(self, consumer: Declaration) -> Callable[..., Any]:
        batch = BatchCall(consumer)
        self._ahandle = batch.ahandle
        calls = Calls(item=batch.item, handle=self._handle, failed=self._failed)
        self._batches = Batches(self._name, self._attempts, common_errors(consumer), calls)
        return self._handle_all

    def _within_middleware(self, call: Call) -> Call:
        if self._layers:
            attempts = Attempts(self._consumer, self._judge)
            self._handle_within = attempts.batches_within(self._layers, call)
        else:
            self._handle_within = call
        return self._run

    def _start(self, consumption: "Consumption") -> None:
        self._batches.consumption = consumption
        loop = asyncio.get_running_loop()
        reader = consumption.start_batches()
        loop.add_reader(reader, self._look, consumption)
        with self._threads.in_use():
            serving = [loop.create_task(self._serve(consumption)) for _ in range(self._count)]
        self._lanes = [*serving, loop.create_task(_forget(loop, reader, serving))]

    def _look(self, consumption: "Consumption") -> None:
        self._is_cancelled = consumption.look()
        if self._is_cancelled:
            for task in self._running:
                task.cancel()

    async def _serve(self, consumption: "Consumption") -> None:
        loop = asyncio.get_running_loop()
        while (messages := await consumption.next_batch()) is not None:
            task = BatchTask(self._run(messages), loop=loop, about=(self._name, messages[0]))
            self._running.add(task)
            await asyncio.wait({task})
            self._running.discard(task)

    async def _run(self, messages: Sequence[Message]) -> None:
        try:
            await self._handle_within(messages)
        except asyncio.CancelledError:
            self._batches.abandon(messages, hands_back=self._is_cancelled)
        finally:
            leave_thread()

    async def _handle_all(self, messages: Sequence[Message]) -> None:
        steps = self._batches.handle(messages)
        call = next(steps, None)
        while call is not None:
            answer = await _answered(call)
            try:
                call = steps.send(answer)
            except StopIteration:
                return

    async def _handle(self, items: Sequence[Item]) -> Any:
        late = partial(BatchTimeoutError, self._timeout)
        try:
            return await limited(partial(self._ahandle, items), self._timeout, late)
        finally:
            leave_thread()


class BatchThreadDispatch(ThreadDispatch):
    """Calls of a `def handle_batch`, in threads of the process."""

    def __init__(self, consumer: Declaration, layers: Sequence[Middleware] = ()) -> None:
        super().__init__(consumer, layers)
        # The engine watches the time of a batch without a thread of ours.
        self._has_timeout = False

    def _call_of(self, consumer: Declaration) -> Callable[..., Any]:
        self._called: Call = self._handle_all
        batch = BatchCall(consumer)
        calls = Calls(item=batch.item, handle=self._handle_items, failed=self._failed)
        self._batches = Batches(self._name, self._attempts, common_errors(consumer), calls)
        return batch_handled_once(consumer, batch.handle)

    def _wrap(self) -> None:
        attempts = Attempts(self._consumer, self._judge)
        self._handle_within = attempts.batches_within(self._layers, self._handle_all)
        self._called = self._handle_all_within

    def _handle_all_within(self, messages: Sequence[Message]) -> None:
        with FreshConnections(), ChildrenEnd():
            self._handle_within(messages)

    def _start(self, consumption: "Consumption") -> None:
        self._batches.consumption = consumption
        super()._start(consumption)

    def _handle(self, messages: Any) -> None:
        self._called(messages)

    def _handle_all(self, messages: Sequence[Message]) -> None:
        steps = self._batches.handle(messages)
        call = next(steps, None)
        while call is not None:
            try:
                call = steps.send(_called(call))
            except StopIteration:
                return

    def _handle_items(self, items: Sequence[Item]) -> Any:
        turn = self._batches.consumption.begin_turn([item.message for item in items])
        try:
            with FreshConnections(), ChildrenEnd():
                endings = self._handle_message(items)
        except BaseException:
            _end(turn, self._timeout)
            raise
        _end(turn, self._timeout)
        return endings


def _end(turn: "Turn | None", limit: float | None) -> None:
    """Raises BatchTimeoutError if the handler has lost its messages meanwhile."""
    if turn is not None and not turn.end():
        raise BatchTimeoutError(limit, is_settled=True)


def _called(call: Callable[[], Any]) -> Answer:
    try:
        return call(), None
    except BaseException as error:
        return None, error


async def _answered(call: Callable[[], Any]) -> Answer:
    try:
        return await call(), None
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        return None, error


async def _forget(
    loop: asyncio.AbstractEventLoop, reader: int, serving: Sequence[asyncio.Task[None]]
) -> None:
    try:
        await asyncio.wait(serving)
    finally:
        loop.remove_reader(reader)


def _word(answer: object) -> Outcome | None:
    """The outcome that handle_error returned. Raises TypeError for work that nobody waits for."""
    outcome = as_outcome(answer)
    if outcome is None:
        check_finished(answer, "handle_error")
    return outcome


def _described(error: BaseException) -> str:
    own = f"{type(error).__name__}: {text_of(error)}"
    if not isinstance(error, BaseExceptionGroup):
        return own
    return f"{own}: {'; '.join(map(_described, error.exceptions))}"


def dispatch_for(consumer: Declaration, concurrency: int) -> Dispatch:
    """The dispatch that the consumer's handle_message needs, for `concurrency` messages at once, or
    its handle_batch, for as many batches.
    Raises ConfigurationError if it has none, or if a middleware cannot be around it."""
    has_batches = is_batch(consumer)
    if iscoroutinefunction(handler_of(consumer)):
        on_loop = BatchLoopDispatch if has_batches else LoopDispatch
        return on_loop(consumer, concurrency, middleware())
    in_threads = BatchThreadDispatch if has_batches else ThreadDispatch
    return in_threads(consumer, middleware())
