"""One attempt at a message: the handler is called, and the engine says what follows."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from nats_consumer.current import restored
from nats_consumer.outcomes import Ack, Outcome, Retry, raised_outcome
from nats_consumer.publish.drafts import Draft
from nats_consumer.testing.deliver import ThreadOfTheTest
from nats_consumer.testing.message import FakeMessage, FakeSequencePair

from .callers import Caller
from .durables import Delivery, Durable
from .streams import StoredMessage

if TYPE_CHECKING:
    from nats_consumer.consumer import NatsConsumer

# Stores a message in the dead letter stream.
Keep: TypeAlias = Callable[[Draft], object]


@dataclass(frozen=True)
class Attempt:
    """A finished attempt: its number, the outcome as it was carried out, and the error if it
    failed. `outcome` is None if the worker was lost."""

    consumer: "type[NatsConsumer]"
    message: StoredMessage
    number: int
    at: datetime
    outcome: Outcome | None = None
    error: BaseException | None = None

    def __str__(self) -> str:
        failure = f", {type(self.error).__name__}: {self.error}" if self.error else ""
        return (
            f"{self.consumer.__name__}: attempt {self.number} at {self.message.subject}: "
            f"{self.outcome!r}{failure}"
        )


class DeliveredMetadata:
    """The metadata of a delivery."""

    domain = None

    def __init__(self, durable: Durable, delivery: Delivery) -> None:
        stored = delivery.message
        self.sequence = FakeSequencePair(stored.sequence, delivery.number)
        self.num_delivered = delivery.attempt
        self.timestamp = stored.stored_at
        self.stream = stored.stream
        self.consumer = durable.options.durable
        self._durable = durable

    @property
    def num_pending(self) -> int:
        """Number of messages that were not delivered yet."""
        return len(self._durable.pending()) - len(self._durable.unsettled)


class DeliveredMessage(FakeMessage):
    """The message that a handler gets."""

    def __init__(self, durable: Durable, delivery: Delivery, keep: Keep) -> None:
        stored = delivery.message
        super().__init__(
            stored.data, subject=stored.subject, headers=stored.headers, attempt=delivery.attempt
        )
        self.metadata = DeliveredMetadata(durable, delivery)
        self._durable = durable
        self._delivery = delivery
        self._keep = keep
        # What middleware has seen of a failed attempt.
        self.judged: tuple[Outcome | None, BaseException] | None = None

    @property
    def identity(self) -> str:
        """Its identity at the publisher."""
        from nats_consumer import _native

        return _native.identity_of(self._delivery.message)

    def nak(self, delay: float | None = None) -> Awaitable[None]:
        """Hand it back; `delay` is in seconds. Without one it comes again at once."""
        return self._settle(Retry(delay or 0.0))

    def copy_to_dlq(self, reason: str) -> Awaitable[None]:
        """Store a copy in the dead letter stream."""
        for copy in dead_letter(self._durable, self._delivery, reason):
            self._keep(copy)
        return super().copy_to_dlq(reason)


def dead_letter(
    durable: Durable, delivery: Delivery, reason: str, error: BaseException | None = None
) -> list[Draft]:
    """The messages that the dead letter is stored as."""
    return durable.rules.dead_letter(delivery.message, delivery.attempt, reason, error)


async def handle_one(
    caller: Caller, durable: Durable, deliveries: Sequence[Delivery], keep: Keep
) -> list[tuple[Delivery, Outcome, BaseException | None]]:
    """Call the handler with the one message, and handle_error if it was the last attempt. Return
    the outcome as it is carried out, and the error of a failed attempt. `keep` stores what the
    handler sends to the dead letters itself."""
    [delivery] = deliveries
    message = DeliveredMessage(durable, delivery, keep)
    with ThreadOfTheTest().in_use(), restored():
        outcome, error = await _called(caller, durable, message)
        if message.judged is not None:
            outcome, error = message.judged
        elif outcome is None and error is not None:
            outcome = await _after_failure(caller, durable, message, error)
    settled = message.outcome or outcome or Ack()
    return [(delivery, durable.rules.carried_out(delivery.attempt, settled), error)]


async def _called(
    caller: Caller, durable: Durable, message: DeliveredMessage
) -> tuple[Outcome | None, BaseException | None]:
    """The handler's outcome, or its error."""
    try:
        answer = await caller.handle(
            durable.limit, durable.handler, message, durable.rules.timed_out
        )
        return durable.rules.answered(answer), None
    # sys.exit() fails in a worker too. Ctrl-C, and pytest.fail() in a handler, are for the test.
    except (Exception, SystemExit) as error:
        return raised(error)


def raised(error: BaseException) -> tuple[Outcome | None, BaseException | None]:
    """The outcome that a handler raised, or its error."""
    try:
        outcome = raised_outcome(error)
    except Exception as refused:
        return None, refused
    return outcome, None if outcome else error


async def _after_failure(
    caller: Caller, durable: Durable, message: DeliveredMessage, error: BaseException
) -> Outcome | None:
    if message.outcome is not None:
        return None
    retry = durable.rules.failed(message.attempt, error)
    if retry is not None:
        return retry
    return durable.rules.final_word(await caller.wait(durable.failed, message, error))
