"""One batch: the code of workers handles it, and the engine says what becomes of each message."""

from collections.abc import Awaitable, Sequence
from functools import partial
from time import monotonic
from typing import Any

from asgiref.sync import iscoroutinefunction

from nats_consumer.current import restored
from nats_consumer.declare.batches import BatchCall, Item, common_errors, handler_of
from nats_consumer.declare.middleware import Middleware, middleware
from nats_consumer.declare.once import batch_handled_once
from nats_consumer.message import Message
from nats_consumer.outcomes import Ack, Outcome
from nats_consumer.run.attempts import Attempts, limited
from nats_consumer.run.batches import Answer, Batches, BatchTimeoutError, Calls
from nats_consumer.testing.deliver import ThreadOfTheTest, in_lane
from nats_consumer.testing.within import waiting

from .attempts import DeliveredMessage, Keep, raised
from .callers import Caller, InThread, OnLoop, finish
from .durables import Delivery, Durable

Result = tuple[Delivery, Outcome, BaseException | None]


async def handle_batch(
    caller: Caller, durable: Durable, deliveries: Sequence[Delivery], keep: Keep
) -> list[Result]:
    """Call handle_batch, for parts of the batch too if it fails. Return the outcome of each
    message as it is carried out, and the error of a failed attempt."""
    messages = [DeliveredMessage(durable, each, keep) for each in deliveries]
    settling = _Settling(durable)
    with ThreadOfTheTest().in_use(), restored():
        if layers := middleware():
            await _handle_within(layers, caller, durable, settling, messages)
        else:
            await _handle(caller, durable, settling, messages)
    return [
        (delivery, *settling.result(message))
        for delivery, message in zip(deliveries, messages, strict=True)
    ]


async def _handle_within(
    layers: Sequence[Middleware],
    caller: Caller,
    durable: Durable,
    settling: "_Settling",
    messages: Sequence[DeliveredMessage],
) -> None:
    async def judge(message: Any, error: Any) -> None:
        if settling.raised(message, error):
            settling.exhaust(message, error, await durable.failed(message, error))

    async def ahandle(messages: Sequence[DeliveredMessage]) -> None:
        await _handle(OnLoop(), durable, settling, messages)

    def handle(messages: Sequence[DeliveredMessage]) -> None:
        finish(_handle(InThread(), durable, settling, messages))

    if iscoroutinefunction(handler_of(durable.consumer)):
        within = Attempts(durable.consumer, judge).batches_within(layers, ahandle)
        await caller.wait(within, messages)
    else:
        attempts = Attempts(durable.consumer, waiting(judge))
        await caller.block(in_lane, attempts.batches_within(layers, handle), messages)


async def _handle(
    caller: Caller, durable: Durable, settling: "_Settling", messages: Sequence[DeliveredMessage]
) -> None:
    calls = _Calling(caller, durable)
    batches = Batches(
        durable.options.name,
        durable.options.max_attempts,
        common_errors(durable.consumer),
        Calls(item=calls.batch.item, handle=calls.handle, failed=calls.failed),
    )
    batches.consumption = settling  # type: ignore[assignment] # it has the methods for batches
    steps = batches.handle(messages)
    call = next(steps, None)
    while call is not None:
        answer = await _answered(call())
        try:
            call = steps.send(answer)
        except StopIteration:
            return


class _Calling:
    """The project's code, called for a batch."""

    def __init__(self, caller: Caller, durable: Durable) -> None:
        self.batch = BatchCall(durable.consumer)
        self._caller = caller
        self._durable = durable
        self._limit = durable.options.handler_timeout
        self._blocking = batch_handled_once(durable.consumer, self.batch.handle)

    async def handle(self, items: Sequence[Item]) -> Any:
        """Call handle_batch. Raises BatchTimeoutError if it takes longer than handler_timeout; a
        plain `def` runs to its end first."""
        if self.batch.is_async:
            return await self._caller.wait(self._in_time, items)
        began = monotonic()
        endings = await self._caller.block(in_lane, self._blocking, items)
        if self._limit is not None and monotonic() - began > self._limit:
            raise BatchTimeoutError(self._limit)
        return endings

    async def failed(self, message: Message, error: Any) -> Any:
        """Call handle_error after the last attempt."""
        return await self._caller.wait(self._durable.failed, message, error)

    async def _in_time(self, items: Sequence[Item]) -> Any:
        late = partial(BatchTimeoutError, self._limit)
        return await limited(partial(self.batch.ahandle, items), self._limit, late)


class _Settling:
    """Stands in for the engine's consumption: keeps what becomes of each message."""

    def __init__(self, durable: Durable) -> None:
        self._rules = durable.rules
        self._errors: dict[Any, BaseException] = {}
        self._in_common: set[Any] = set()

    def returned(self, message: DeliveredMessage, value: object) -> None:
        """Settle the message by what the handler returned for it."""
        message.outcome = message.outcome or self._rules.answered(value)

    def raised(self, message: DeliveredMessage, error: BaseException) -> bool:
        """Settle the message, which failed with `error`. Return whether the final word follows."""
        outcome, failure = raised(error)
        if failure is not None:
            self._errors[message] = failure
            outcome = self._rules.failed(message.attempt, failure)
        message.outcome = message.outcome or outcome
        return message.outcome is None

    def exhaust(
        self, message: DeliveredMessage, error: BaseException, answer: object = None
    ) -> None:
        """Settle the message by the final word."""
        self._errors.setdefault(message, error)
        message.outcome = message.outcome or self._rules.final_word(answer)

    def failed_in_common(self, message: DeliveredMessage, kind: str, is_late: bool) -> None:  # noqa: ARG002
        """Let the message come again, because its surroundings failed."""
        self._in_common.add(message)
        message.outcome = self._rules.failed_in_common(message.attempt)

    def result(self, message: DeliveredMessage) -> tuple[Outcome, BaseException | None]:
        """The outcome as it is carried out, and the error."""
        outcome = message.outcome or Ack()
        if message not in self._in_common:
            outcome = self._rules.carried_out(message.attempt, outcome)
        return outcome, self._errors.get(message)


async def _answered(call: Awaitable[Any]) -> Answer:
    try:
        return await call, None
    except (Exception, SystemExit) as error:
        return None, error
