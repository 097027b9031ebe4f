"""The two worlds of a scenario: the test kit's model, and a real server with real workers."""

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

from asgiref.sync import sync_to_async

from nats_consumer import JetstreamPullConsumer, NatsConsumer, apublish
from nats_consumer.api import PubAck, RawStreamMsg, StreamConfig
from nats_consumer.client import Client
from nats_consumer.dead_letters import Selection, dead_letters
from nats_consumer.exceptions import NotFound
from nats_consumer.names import covers
from nats_consumer.templates import pattern_of
from nats_consumer.testing import Nats
from tests.waiting import PAUSE, becomes_true

_LONGEST_WAIT = 30

# Moments in nanoseconds, in ids.
_MOMENT = re.compile(r"\d{16,}")
# Places of messages for later without an id.
_PLACE = re.compile(r"_later\.(?:_INBOX[\w-]+|\d+)\.")
# Clocks of a machine, read at the two ends of a wait.
_CLOCK_SECONDS = 0.005

Key = tuple[str, int]


@dataclass
class Ledger:
    """A record: `calls` by consumer and message, `order` as they came, and what is left.
    `times` are seconds."""

    calls: dict[Key, list[str]] = field(default_factory=lambda: defaultdict(list))
    order: list[Key] = field(default_factory=list)
    times: dict[Key, list[float]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)
    letters: list[object] = field(default_factory=list)
    stored: list[object] = field(default_factory=list)
    pending: dict[str, int] = field(default_factory=dict)

    def gaps(self) -> dict[Key, list[float]]:
        """The seconds between the attempts at each message."""
        return {
            key: [after - before for before, after in pairwise(times)]
            for key, times in self.times.items()
        }

    def waits_at_least(self, other: "Ledger") -> bool:
        """Whether no attempt came earlier than in the other one."""
        theirs = other.gaps()
        return all(
            ours >= least - _CLOCK_SECONDS
            for key, gaps in self.gaps().items()
            for ours, least in zip(gaps, theirs[key], strict=True)
        )


class World(ABC):
    """A stream, and consumers that note their calls. Subjects are given without the stream's name,
    which is their first token."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.ledger = Ledger()
        self.consumers: list[type[NatsConsumer]] = []
        self.subjects: dict[int, str] = {}

    @abstractmethod
    def clock(self) -> float:
        """The time in seconds."""

    @abstractmethod
    async def start(self, *consumers: type[NatsConsumer], **fields: Any) -> None:
        """Start the consumers, once in each scenario. `fields` are those of the stream."""

    @abstractmethod
    async def pause(self) -> None:
        """Stop the consumers, until resume()."""

    @abstractmethod
    async def die(self, consumer: type[NatsConsumer]) -> None:
        """Have a worker take the next message of a paused consumer, and settle nothing."""

    @abstractmethod
    async def resume(self) -> None:
        """Start them again."""

    @abstractmethod
    async def run(self, pending: int = 0, calls: int = 0) -> None:
        """Wait until all but `pending` messages of each consumer are settled, after that number of
        calls or more."""

    @abstractmethod
    async def replay(self, consumer: type[NatsConsumer]) -> None:
        """Publish its dead letters again."""

    @abstractmethod
    async def end(self) -> Ledger:
        """Stop, and return the ledger with what is left."""

    def subject(self, text: str) -> str:
        """The whole subject."""
        return f"{self.stream}.{text}"

    def consumer(
        self,
        act: Callable[[Any], Any] = lambda message: None,
        *,
        how: str = "def",
        name: str = "Orders",
        base: type[NatsConsumer] = JetstreamPullConsumer,
        **attributes: Any,
    ) -> type[NatsConsumer]:
        """A consumer whose handler notes its call and then does what `act` says: an exception
        that `act` returns is raised. `how` is "def" or "async"."""

        def called(self: Any, message: Any) -> Any:
            world.note(name, message, f"attempt {message.attempt}")
            answer = act(message)
            if isinstance(answer, BaseException) and not hasattr(answer, "is_returned"):
                raise answer
            return answer

        async def acalled(self: Any, message: Any) -> Any:
            answer = called(self, message)
            return await answer if hasattr(answer, "__await__") else answer

        world = self
        filters = attributes.pop("filters", [">"])
        members = {
            "stream_name": self.stream,
            "filter_subjects": [self.subject(each) for each in filters],
            "durable_name": f"{self.stream}-{name}",
            "initial_retry_delay": 0.02,
            "max_retry_delay": 0.05,
            "handle_message": acalled if how == "async" else called,
            **attributes,
        }
        if "handle_batch" in attributes:
            del members["handle_message"]
        if {"max_deliver", "backoff_delays"} & set(attributes):
            del members["initial_retry_delay"], members["max_retry_delay"]
        return type(name, (base,), members)

    def note(self, name: str, message: Any, text: str) -> None:
        """Write a line about a message into the ledger."""
        key = (name, message.metadata.sequence.stream)
        self.ledger.calls[key].append(self.plain(text))
        self.ledger.order.append(key)
        self.ledger.times[key].append(self.clock())

    async def publish(
        self,
        subject: str,
        data: Any = b"",
        *,
        headers: Mapping[str, str] | None = None,
        msg_id: str | None = None,
        at: timedelta | None = None,
        ttl: float | None = None,
    ) -> PubAck:
        """Publish to `<stream>.<subject>`."""
        ack = await apublish(
            self.subject(subject), data, headers=headers, msg_id=msg_id, at=at, ttl=ttl
        )
        if at is None:
            self.subjects[ack.seq] = self.subject(subject)
        return ack

    def _config(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"subjects": [f"{self.stream}.>"], **fields}

    def plain(self, text: object) -> str:
        """The text without the name of the stream, and without what is random."""
        text = _PLACE.sub("_later.RANDOM.", str(text))
        return _MOMENT.sub("MOMENT", text.replace(self.stream, "STREAM"))

    def _keep(self, letters: Any, stored: Any, pending: Mapping[str, int]) -> Ledger:
        self.ledger.pending = dict(pending)
        dead = [
            [
                self.plain(each.subject),
                each.sequence,
                self.plain(each.consumer),
                each.reason,
                self.plain(each.error),
                each.deliveries,
                sorted((name, self.plain(value)) for name, value in each.headers),
                each.payload,
            ]
            for each in letters
        ]
        # Letters of one batch, or of handlers that run at once, are stored in any order.
        self.ledger.letters = sorted(dead, key=str)
        self.ledger.stored = [
            [
                self.plain(subject),
                data,
                sorted((name, self.plain(value)) for name, value in (headers or {}).items()),
            ]
            for subject, data, headers in stored
        ]
        return self.ledger


class ModelWorld(World):
    """The test kit."""

    def clock(self) -> float:
        """The virtual time."""
        return self.nats.waited.total_seconds()

    async def start(self, *consumers: type[NatsConsumer], **fields: Any) -> None:
        """Put the model in place."""
        self.consumers = list(consumers)
        config = StreamConfig(name=self.stream, **self._config(fields))
        self._stack = ExitStack()
        self.nats = self._stack.enter_context(Nats(consumers, [config]).in_use())

    async def pause(self) -> None:
        """Nothing is delivered before run()."""

    async def die(self, consumer: type[NatsConsumer]) -> None:
        """Lose a worker."""
        await self.nats.adeliver_one(consumer, die=True)

    async def resume(self) -> None:
        """Nothing was stopped."""

    async def run(self, pending: int = 0, calls: int = 0) -> None:
        """Deliver, in virtual time."""
        await self.nats.arun()
        assert all(len(self.nats.pending(each)) == pending for each in self.consumers)

    async def replay(self, consumer: type[NatsConsumer]) -> None:
        """Publish its dead letters again."""
        self.nats.replay(consumer)

    async def end(self) -> Ledger:
        """Return the ledger."""
        self._stack.close()
        letters = [each for one in self.consumers for each in self.nats.dead_letters(one)]
        stored = [(each.subject, each.data, each.headers) for each in self.nats.messages()]
        pending = {each.__name__: len(self.nats.pending(each)) for each in self.consumers}
        return self._keep(letters, stored, pending)


class RealWorld(World):
    """A real server, and the engine's workers in this process. `starts` bounds how many worlds
    start at once."""

    def __init__(self, stream: str, client: Client, starts: asyncio.Semaphore) -> None:
        super().__init__(stream)
        self._jetstream = client.jetstream()
        self._starts = starts
        self._running: list[NatsConsumer] = []

    def clock(self) -> float:
        """The real time."""
        return time.monotonic()

    async def start(self, *consumers: type[NatsConsumer], **fields: Any) -> None:
        """Create the stream and start the workers."""
        self.consumers = list(consumers)
        async with self._starts:
            await self._jetstream.add_stream(name=self.stream, **self._config(fields))
            await self.resume()

    async def pause(self) -> None:
        """Stop the workers."""
        for each in self._running:
            await each.stop()

    async def die(self, consumer: type[NatsConsumer]) -> None:
        """Fetch as a worker does, and forget it."""
        taken = await self._jetstream.pull_subscribe_bind(consumer.durable_name, self.stream)
        await taken.fetch(1)
        await taken.unsubscribe()

    async def resume(self) -> None:
        """Start workers."""
        self._running = [each() for each in self.consumers]
        for each in self._running:
            await each.start()

    async def run(self, pending: int = 0, calls: int = 0) -> None:
        """Ask the server until everything is settled."""
        # First the calls: a message for later is not there yet, so it cannot be settled.
        await becomes_true(lambda: sum(map(len, self.ledger.calls.values())) >= calls)
        for each in self._running:
            await self._settled(each, pending)

    async def _settled(self, consumer: NatsConsumer, pending: int) -> None:
        filters = [pattern_of(each) for each in consumer.filter_subjects]
        async with asyncio.timeout(_LONGEST_WAIT):
            # Only the server knows, and it tells nobody.
            while not self._is_settled(await self._info(consumer), filters, pending):  # noqa: ASYNC110
                await asyncio.sleep(PAUSE)

    def _is_settled(self, info: Any, filters: list[str], pending: int) -> bool:
        own = [
            number
            for number, subject in self.subjects.items()
            if any(covers(each, subject) for each in filters)
        ]
        # For a moment the server does not count what it has just stored.
        has_all = info.delivered.stream_seq >= max(own, default=0)
        return has_all and info.num_pending == 0 and (info.num_ack_pending or 0) == pending

    async def _info(self, consumer: NatsConsumer) -> Any:
        return await self._jetstream.consumer_info(self.stream, consumer.get_durable_name())

    async def replay(self, consumer: type[NatsConsumer]) -> None:
        """Publish its dead letters again."""
        self.subjects |= await sync_to_async(self._replay, thread_sensitive=False)(consumer)

    def _replay(self, consumer: type[NatsConsumer]) -> dict[int, str]:
        subjects = {}
        with dead_letters() as letters:
            for each in letters.select(self.stream, Selection(consumer=consumer.durable_name)):
                subjects[letters.replay(each)[1]] = each.subject
        return subjects

    async def end(self) -> Ledger:
        """Stop the workers, and ask the server for what is left."""
        infos = {each.consumer_name: await self._info(each) for each in self._running}
        for each in self._running:
            await each.stop()
        letters = await sync_to_async(self._letters, thread_sensitive=False)()
        state = (await self._jetstream.stream_info(self.stream)).state
        numbers = range(state.first_seq, state.last_seq + 1) if state.messages else ()
        found = [await self._message(number) for number in numbers]
        stored = [(each.subject, each.data or b"", each.headers) for each in found if each]
        return self._keep(
            letters, stored, {name: info.num_ack_pending or 0 for name, info in infos.items()}
        )

    async def _message(self, number: int) -> RawStreamMsg | None:
        try:
            return await self._jetstream.get_msg(self.stream, number)
        except NotFound:
            return None

    def _letters(self) -> list[Any]:
        with dead_letters() as letters:
            return [
                each
                for one in self.consumers
                for each in letters.select(self.stream, Selection(consumer=one.durable_name))
            ]
