"""Durables in memory: which message comes next, and when."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nats_consumer.current import current_attempt
from nats_consumer.declare.batches import call_of, is_batch
from nats_consumer.declare.middleware import middleware
from nats_consumer.declare.options import consumer_options
from nats_consumer.outcomes import Retry
from nats_consumer.run.attempts import name_of
from nats_consumer.run.batch_dispatch import BatchLoopDispatch
from nats_consumer.run.dispatch import LoopDispatch
from nats_consumer.testing.within import attempt_within

from .streams import SECOND, NotModelled, StoredMessage, Stream

if TYPE_CHECKING:
    from nats_consumer.consumer import NatsConsumer
    from nats_consumer.outcomes import Outcome


@dataclass
class Delivery:
    """A message that was delivered and is not settled. `due` is when it comes again, in nanoseconds
    since 1970; `is_lost` says that its worker died after the last attempt."""

    message: StoredMessage
    attempt: int
    number: int
    due: int
    is_lost: bool = False


class Durable:
    """The durable of one consumer. Raises ConfigurationError if the consumer cannot run."""

    def __init__(self, consumer: "NatsConsumer", stream: Stream) -> None:
        # On first use: declaring consumers does not load the engine.
        from nats_consumer import _native

        self.consumer = consumer
        self.options = consumer_options(consumer)
        self.rules = _native.Rules(self.options)
        self.handler = attempt_within(consumer, self._judge) or call_of(consumer)
        # Within middleware the handler keeps its own time.
        self.limit = None if middleware() else self.options.handler_timeout
        # It calls handle_error, whether that is `async def` or `def`.
        dispatch = BatchLoopDispatch if is_batch(consumer) else LoopDispatch
        self.failed = dispatch(consumer, 1).failed
        self.stream = stream
        self.lost_acks = 0
        self.unsettled: dict[int, Delivery] = {}
        self._known: dict[int, Delivery] = {}
        self._next = self.options.start_sequence or 1
        self._delivered = 0
        start = self.options.start_time
        self._since = datetime.fromisoformat(start) if start else None

    async def _judge(self, message: Any, error: Any) -> None:
        """Note what follows a failed attempt within middleware."""
        outcome = self.rules.failed(message.attempt, error)
        if outcome is None and message.outcome is None:
            outcome = self.rules.final_word(await self.failed(message, error))
        message.judged = outcome, error
        if attempt := current_attempt():
            attempt.outcome = name_of(message.outcome or outcome)

    def take(self, now: int) -> Delivery | None:
        """Deliver the next message that is due, if one is."""
        self._forget_deleted(now)
        ready = [each for each in self.unsettled.values() if each.due <= now]
        if ready:
            return self._again(min(ready, key=lambda each: (each.due, each.message.sequence)), now)
        limit = self.options.max_ack_pending
        if limit is not None and len(self.unsettled) >= limit:
            return None
        message = next(self._waiting(), None)
        if message is None:
            # What is here now never has to be looked at again.
            self._next = max(self._next, self.stream.last + 1)
            return None
        self._next = message.sequence + 1
        self._delivered += 1
        delivery = Delivery(message, 1, self._delivered, self._lease(now))
        self.unsettled[message.sequence] = self._known[message.sequence] = delivery
        return delivery

    def take_batch(self, now: int) -> list[Delivery]:
        """Deliver what is due: one message, or as many as a batch has."""
        batch: list[Delivery] = []
        size = 0
        while len(batch) < (self.options.max_batch or 1) and size < self.options.max_batch_bytes:
            delivery = self.take(now)
            if delivery is None:
                break
            batch.append(delivery)
            size += len(delivery.message.data)
        return batch

    def pending(self) -> list[StoredMessage]:
        """The messages that are not settled, delivered or not."""
        return [*(each.message for each in self.unsettled.values()), *self._waiting()]

    def next_due(self, *, only_attempts: bool) -> int | None:
        """When the next message comes; None if none does. With `only_attempts`, messages are left
        out that come again without end because their attempts are used up."""
        due = [
            each.due
            for each in self.unsettled.values()
            if not (only_attempts and self._is_endless(each))
        ]
        return min(due, default=None)

    def settle(self, delivery: Delivery, outcome: "Outcome", now: int) -> None:
        """Carry out the outcome: put off or remove the message."""
        if isinstance(outcome, Retry):
            delivery.due = now + round((outcome.after or 0.0) * SECOND)
            return
        if self.lost_acks:
            self.lost_acks -= 1
            return
        self.unsettled.pop(delivery.message.sequence, None)
        self.stream.note_settled(delivery.message)

    def die(self, delivery: Delivery) -> None:
        """The worker is lost with the message: it comes again after ack_wait."""
        is_beyond = delivery.attempt > self.options.max_attempts
        delivery.is_lost = is_beyond and self.options.exhausted != "nak"

    def deliver_again(self, now: int) -> None:
        """Let all messages come again that were delivered, as if no settlement had arrived."""
        for sequence, delivery in self._known.items():
            delivery.due = now
            self.unsettled[sequence] = delivery

    def _again(self, delivery: Delivery, now: int) -> Delivery:
        if delivery.is_lost:
            raise NotModelled(
                "The test kit has no model of a message that is lost again with its worker after "
                "its last attempt."
            )
        self._delivered += 1
        delivery.attempt += 1
        delivery.number = self._delivered
        delivery.due = self._lease(now)
        return delivery

    def _waiting(self) -> Iterator[StoredMessage]:
        return (
            message
            for message in self.stream.after(self._next)
            if self.rules.takes(message.subject)
            and (self._since is None or message.stored_at >= self._since)
        )

    def _lease(self, now: int) -> int:
        return now + round(self.options.ack_wait * SECOND)

    def _is_endless(self, delivery: Delivery) -> bool:
        is_last = delivery.attempt >= self.options.max_attempts
        return is_last and self.options.exhausted == "nak"

    def _forget_deleted(self, now: int) -> None:
        self.stream.expire(now)
        for sequence, delivery in list(self.unsettled.items()):
            if delivery.message not in self.stream:
                del self.unsettled[sequence]
