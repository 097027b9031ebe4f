"""`Nats`: a server and workers for a test, in memory and without real time."""

import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, cast

from nats_consumer.api import StreamConfig
from nats_consumer.declare import registry
from nats_consumer.declare.durable import shared_durables
from nats_consumer.exceptions import ConfigurationError, Unreachable
from nats_consumer.lanes.blocking import on_event_loop
from nats_consumer.names import covers
from nats_consumer.outcomes import DeadLetter
from nats_consumer.publish import on_commit
from nats_consumer.publish.publisher import replaced_by

from .capture import Published
from .model.attempts import Attempt, dead_letter, handle_one
from .model.batches import handle_batch
from .model.callers import Caller, InThread, OnLoop, finish
from .model.declared import make_servers
from .model.durables import Delivery, Durable
from .model.server import ModelPublisher, Server
from .model.streams import SECOND, StoredMessage, Stream, moment

if TYPE_CHECKING:
    from nats_consumer._native import StoredLetter
    from nats_consumer.api import PubAck
    from nats_consumer.consumer import NatsConsumer
    from nats_consumer.publish.drafts import Draft

_Value = TypeVar("_Value")

# A handler that publishes what it consumes would be called without end.
_MOST_ATTEMPTS = 100_000


class Nats:
    """A server in memory, and one worker for each of `consumers`, by default all of the project.

    It is used as a context manager: in the body, everything that this process publishes goes into
    its streams. Nothing is delivered until you call run(), advance() or deliver_one(), which call
    the handlers in the thread of the test. On an event loop use arun(), aadvance() and
    adeliver_one(). Time is virtual: a retry in an hour takes none.

    A stream has the subjects that setup() gives it, otherwise the filters of its consumers. A
    message to another subject is only noted as published. With `streams`, there are these alone,
    and publishing to any other subject raises NoStreamResponse, as with a server.

    `published` are the messages that the code has published, `attempts` all calls of handlers.
    Raises ConfigurationError for a consumer that cannot run, and NotModelled."""

    def __init__(
        self,
        consumers: "Iterable[type[NatsConsumer]] | None" = None,
        streams: Iterable[StreamConfig] | None = None,
    ) -> None:
        self.published: list[Published] = []
        self.attempts: list[Attempt] = []
        self._began = self._now = time.time_ns()
        self._is_strict = streams is not None
        self._held: set[str] = set()
        self._is_down = False
        self._is_delivering = False
        every = cast("list[type[NatsConsumer]]", registry.consumers())
        chosen = list(dict.fromkeys(every if consumers is None else consumers))
        if shared := shared_durables(chosen):
            raise ConfigurationError("\n".join(shared))
        instances = [each() for each in chosen]
        self._servers = make_servers(instances, streams)
        self._durables = {
            type(each): Durable(each, self._server(each.connection).streams[str(each.stream_name)])
            for each in instances
        }

    @contextmanager
    def in_use(self) -> "Iterator[Nats]":
        """In the body, what this process publishes is stored here."""
        with replaced_by(self._publisher, self._held.add):
            yield self

    @property
    def now(self) -> datetime:
        """The virtual time. It begins with the real one, and only run() and advance() move it."""
        return moment(self._now)

    @property
    def waited(self) -> timedelta:
        """How far the virtual time has moved."""
        return timedelta(microseconds=(self._now - self._began) // 1000)

    def run(self) -> None:
        """Deliver until nothing is due any more, and jump over the delays of retries and of
        messages for later. What publish_on_commit() holds for a commit is published first, whether
        rows of an outbox or not. A message whose attempts are used up and that comes again without
        end (ErrorAckBehavior.NAK) stays pending: only advance() delivers it again.

        Raises RuntimeError after 100,000 deliveries."""
        _finish(self._run(InThread()))

    async def arun(self) -> None:
        """run() for async tests."""
        await self._run(OnLoop())

    async def _run(self, caller: Caller) -> None:
        with self._delivering():
            for _ in range(_MOST_ATTEMPTS):
                if await self._deliver_next(caller) or await self._publish_held(caller):
                    continue
                due = self._next_due(only_attempts=True)
                if due is None:
                    return
                self._now = max(self._now, due)
        raise RuntimeError(
            f"{_MOST_ATTEMPTS} messages were delivered, and more are due. Does a handler publish "
            f"what it consumes? The last one was {self.attempts[-1]}"
        )

    def advance(self, seconds: float | timedelta) -> None:
        """Move the virtual time, and deliver what is due until then. Raises like run(), and
        ValueError for a time that has passed."""
        _finish(self._advance(InThread(), seconds))

    async def aadvance(self, seconds: float | timedelta) -> None:
        """advance() for async tests."""
        await self._advance(OnLoop(), seconds)

    async def _advance(self, caller: Caller, seconds: float | timedelta) -> None:
        delay = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if not 0 <= delay < inf:
            raise ValueError(f"Time can only move forward, not by {seconds!r}.")
        end = self._now + round(delay * SECOND)
        with self._delivering():
            while True:
                if await self._deliver_next(caller) or await self._publish_held(caller):
                    continue
                due = self._next_due(only_attempts=False)
                if due is None or due > end:
                    break
                self._now = max(self._now, due)
        self._now = end

    def deliver_one(self, consumer: "type[NatsConsumer]", *, die: bool = False) -> Attempt:
        """Deliver the next message of the consumer that is due, and return the attempt. With `die`
        the worker is lost with it: the handler is not called, and the message comes again after
        ack_wait. Raises LookupError if nothing is due."""
        return _finish(self._deliver_one(InThread(), consumer, die))

    async def adeliver_one(self, consumer: "type[NatsConsumer]", *, die: bool = False) -> Attempt:
        """deliver_one() for async tests."""
        return await self._deliver_one(OnLoop(), consumer, die)

    async def _deliver_one(
        self, caller: Caller, consumer: "type[NatsConsumer]", die: bool
    ) -> Attempt:
        with self._delivering():
            await self._publish_held(caller)
            self._publish_due()
            delivery = self._durable(consumer).take(self._now)
            if delivery is None:
                raise LookupError(f"Nothing is due for {consumer.__name__}.")
            if not die:
                [attempt] = await self._attempt(caller, consumer, [delivery])
                return attempt
        self._durable(consumer).die(delivery)
        lost = Attempt(consumer, delivery.message, delivery.attempt, self.now)
        self.attempts.append(lost)
        return lost

    def redeliver(self, consumer: "type[NatsConsumer]") -> None:
        """Let every message that the consumer got come again, as if its settlements were lost. They
        are delivered by the next run()."""
        self._durable(consumer).deliver_again(self._now)

    def drop_acks(self, consumer: "type[NatsConsumer]", count: int = 1) -> None:
        """Lose the next `count` acknowledgements of the consumer: those messages come again after
        ack_wait. Raises ValueError for a negative count."""
        if count < 0:
            raise ValueError(f"No {count} acknowledgements can be lost.")
        self._durable(consumer).lost_acks = count

    @contextmanager
    def down(self) -> Iterator[None]:
        """In the body, the server is away: publishing raises Unreachable, and nothing is
        delivered."""
        self._is_down = True
        try:
            yield
        finally:
            self._is_down = False

    def messages(self, subject: str = ">") -> list[StoredMessage]:
        """The messages in all streams whose subject matches, in the order they were stored; dead
        letters are left out."""
        streams = [each for server in self._servers.values() for each in server.streams.values()]
        letters = {f"{each.name}-dlq" for each in streams}
        for each in streams:
            each.expire(self._now)
        stored = [each for stream in streams if stream.name not in letters for each in stream]
        found = [each for each in stored if covers(subject, each.subject)]
        return sorted(found, key=lambda each: each.nanoseconds)

    def pending(self, consumer: "type[NatsConsumer]") -> list[StoredMessage]:
        """The messages that the consumer has not settled, delivered or not."""
        return self._durable(consumer).pending()

    def dead_letters(self, consumer: "type[NatsConsumer] | None" = None) -> "list[StoredLetter]":
        """The dead letters of the consumer, or all, oldest first: `subject`, `reason`, `error`,
        `deliveries`, `headers`, `payload`."""
        from nats_consumer import _native

        chosen = self._durables if consumer is None else {consumer: self._durable(consumer)}
        return [_native.read_letter(each) for one in chosen for each in self._stored_letters(one)]

    def replay(self, consumer: "type[NatsConsumer]") -> int:
        """Publish the consumer's dead letters again, as `manage.py nats_dlq replay` does, and
        delete them. Returns how many there were."""
        from nats_consumer import _native

        letters = self._stored_letters(consumer)
        for each in letters:
            self._store(_native.replayed(_native.read_letter(each)), consumer.connection)
            self._letters_of(consumer).delete(each)
        return len(letters)

    def _publisher(self, using: str) -> ModelPublisher:
        return ModelPublisher(self.published, using, self._store)

    def _store(self, draft: "Draft", using: str) -> "PubAck | None":
        if self._is_down:
            raise Unreachable("The server of the test is down.")
        self._now += 1  # no two messages are stored at one moment
        return self._server(using).store(draft, self._now)

    def _server(self, using: str) -> Server:
        if using not in self._servers:
            self._servers[using] = Server([], is_strict=self._is_strict)
        return self._servers[using]

    def _durable(self, consumer: "type[NatsConsumer]") -> Durable:
        try:
            return self._durables[consumer]
        except KeyError:
            raise LookupError(
                f"{consumer.__name__} is not among the consumers of this test: name it in "
                "`consumers`."
            ) from None

    @contextmanager
    def _delivering(self) -> Iterator[None]:
        """Raises RuntimeError in a handler: its message would come again in the middle of it."""
        if self._is_delivering:
            raise RuntimeError("A handler cannot call run(), advance() or deliver_one().")
        self._is_delivering = True
        try:
            yield
        finally:
            self._is_delivering = False

    async def _deliver_next(self, caller: Caller) -> bool:
        """Deliver one message that is due; False if there is none."""
        if self._is_down:
            return False
        self._publish_due()
        for consumer, durable in self._durables.items():
            deliveries = durable.take_batch(self._now)
            if deliveries:
                await self._attempt(caller, consumer, deliveries)
                return True
        return False

    async def _attempt(
        self, caller: Caller, consumer: "type[NatsConsumer]", deliveries: Sequence[Delivery]
    ) -> list[Attempt]:
        durable = self._durables[consumer]

        def keep(draft: "Draft") -> None:
            self._letters_of(consumer).store(draft, self._now)

        handle = handle_batch if durable.options.max_batch else handle_one
        results = await handle(caller, durable, deliveries, keep)
        done = []
        for delivery, outcome, error in results:
            if isinstance(outcome, DeadLetter):
                for copy in dead_letter(durable, delivery, str(outcome.reason), error):
                    keep(copy)
            message, number = delivery.message, delivery.attempt
            done.append(Attempt(consumer, message, number, self.now, outcome=outcome, error=error))
            durable.settle(delivery, outcome, self._now)
        self.attempts += done
        return done

    def _publish_due(self) -> None:
        """Publish the messages for later whose time has come."""
        for using, server in list(self._servers.items()):
            for draft in server.take_due(self._now):
                self._store(draft, using)

    def _next_due(self, *, only_attempts: bool) -> int | None:
        if self._is_down:
            return None
        due = [each.next_due(only_attempts=only_attempts) for each in self._durables.values()]
        due += [each.next_due() for each in self._servers.values()]
        return min((each for each in due if each is not None), default=None)

    async def _publish_held(self, caller: Caller) -> bool:
        """Publish what waits for a commit; False if nothing does."""
        if self._is_down or not self._held:
            return False
        before = len(self.published)
        held = sorted(self._held)
        self._held.clear()
        for database in held:
            await caller.block(on_commit.publish_held, database)
        return len(self.published) > before

    def _letters_of(self, consumer: "type[NatsConsumer]") -> Stream:
        server = self._server(consumer.connection)
        name = f"{consumer.stream_name}-dlq"
        if name not in server.streams:
            server.add(StreamConfig(name=name, subjects=[f"dlq.{consumer.stream_name}.>"]))
        return server.streams[name]

    def _stored_letters(self, consumer: "type[NatsConsumer]") -> list[StoredMessage]:
        subject = f"dlq.{consumer.stream_name}.{self._durable(consumer).options.durable}"
        return [each for each in self._letters_of(consumer) if each.subject == subject]


def _finish(coroutine: Coroutine[Any, Any, _Value]) -> _Value:
    if on_event_loop():
        coroutine.close()
        raise RuntimeError(
            "On an event loop, use arun(), aadvance() or adeliver_one() of the test kit."
        )
    return finish(coroutine)
