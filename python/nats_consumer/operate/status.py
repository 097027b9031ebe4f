"""The state of consumers as their servers see it: who reads, how far behind, since when."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nats_consumer import _native
from nats_consumer.api import ConsumerInfo, StreamInfo
from nats_consumer.client import get_nats_client
from nats_consumer.connect.resolve import display_servers
from nats_consumer.declare.durable import is_sibling
from nats_consumer.declare.options import ConsumerOptions
from nats_consumer.exceptions import (
    ConsumerGone,
    Denied,
    NatsConsumerError,
    NotFound,
    StreamNotFound,
)

from .declared import declared_options
from .durables import is_listened_to, last_active
from .fleet import Worker, workers
from .listing import OLDER_DURABLE, claims

if TYPE_CHECKING:
    from nats_consumer.client import Client

EPHEMERAL = "ephemeral"
"""Shown as the durable of an ephemeral consumer, which has one in each process."""
_DEAD_LETTERS = "-dlq"
# A pull consumer whose handlers are all busy has no request at the server. If its workers may not
# be asked, messages that were delivered within this number of seconds show that it is read.
_LATELY = 30.0
# The server sends the whole message where only its time is wanted.
_LARGE = 64 * 1024
# Each filter is one request.
_MOST_FILTERS = 8


@dataclass(kw_only=True)
class ConsumerStatus:
    """A consumer class as its server sees it. None is not known. `state` is "consumed", "idle",
    "unattended", "paused", "missing" or None; `differs` says how the durable differs from its
    declaration. `delivered` counts all deliveries of the durable, `dead_letters` the messages that
    it gave up; of an ephemeral consumer, those of all its durables."""

    consumer: str
    connection: str
    stream: str
    durable: str
    state: str | None = None
    pending: int | None = None
    ack_pending: int | None = None
    ack_pending_limit: int | None = None
    redelivered: int | None = None
    oldest_seconds: float | None = None
    paused_seconds: float | None = None
    workers: int | None = None
    dead_letters: int | None = None
    delivered: int | None = None
    differs: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class StreamStatus:
    """A stream. A limit that it does not have is None; `leader` is None outside a cluster."""

    name: str
    messages: int
    bytes: int
    max_messages: int | None
    max_bytes: int | None
    replicas: int
    leader: str | None


@dataclass(kw_only=True)
class Unclaimed:
    """A durable of the consumers' streams that no class declares."""

    stream: str
    durable: str
    pending: int
    active_seconds: float | None


@dataclass(kw_only=True)
class ServerStatus:
    """The consumers of one connection. `error` says why the server could not be asked. `workers`
    is None if this user may not ask them."""

    connection: str
    server: str | None = None
    error: str | None = None
    consumers: list[ConsumerStatus]
    streams: list[StreamStatus] = field(default_factory=list)
    unclaimed: list[Unclaimed] = field(default_factory=list)
    workers: list[Worker] | None = None


async def status(
    names: Iterable[str] | None = None,
    using: str | None = None,
    *,
    all_streams: bool = False,
    ages: int | None = None,
    seconds: float | None = None,
) -> list[ServerStatus]:
    """Look at all servers of the consumers called `names`, or of all consumers, at once. A server
    that does not answer, within `seconds` if given, has an `error`. The age of the oldest message
    costs a request for each consumer that is behind; `ages` is the largest number of these, for
    those with most messages. Raises ConfigurationError and ConsumerNotFound."""
    by_connection: dict[str, list[ConsumerOptions]] = defaultdict(list)
    chosen = list(names or ())
    every = declared_options(using=using)
    wanted = {each.name for each in declared_options(chosen, using)} if chosen else None
    for options in every:
        if wanted is None or options.name in wanted:
            by_connection[options.connection].append(options)
    scope = _Scope(every=every, all_streams=all_streams, ages=ages, seconds=seconds)
    looks = (_look_or_error(each, of, scope) for each, of in by_connection.items())
    return list(await asyncio.gather(*looks))


@dataclass(frozen=True, kw_only=True)
class _Scope:
    """All consumers of the project, and how much is asked for."""

    every: list[ConsumerOptions]
    all_streams: bool
    ages: int | None
    seconds: float | None


async def _look_or_error(
    connection: str, declared: list[ConsumerOptions], scope: _Scope
) -> ServerStatus:
    try:
        async with (
            asyncio.timeout(scope.seconds),
            await get_nats_client(using=connection) as client,
        ):
            return await _Look(client, connection, declared, scope).status()
    except NatsConsumerError as error:
        problem = str(error)
    except TimeoutError:
        problem = f"It did not answer within {scope.seconds:g} s."
    return ServerStatus(
        connection=connection, error=problem, consumers=[_unknown(each) for each in declared]
    )


def _unknown(options: ConsumerOptions) -> ConsumerStatus:
    return ConsumerStatus(
        consumer=options.name,
        connection=options.connection,
        stream=options.stream,
        durable=options.durable,
    )


class _Look:
    """One look at one server."""

    def __init__(
        self,
        client: "Client",
        connection: str,
        declared: list[ConsumerOptions],
        scope: _Scope,
    ) -> None:
        self._client = client
        self._jetstream = client.jetstream()
        self._connection = connection
        self._declared = declared
        self._scope = scope
        self._of_connection = [each for each in scope.every if each.connection == connection]
        self._stream_json: dict[str, bytes] = {}
        self._names = sorted({each.stream for each in declared})

    async def status(self) -> ServerStatus:
        """Ask for everything, and put it together."""
        found, self._streams, durables = await asyncio.gather(
            workers(self._client), self._stream_infos(), self._durables()
        )
        letters = await asyncio.gather(*map(self._letters_of, self._names))
        self._letters = dict(zip(self._names, letters, strict=True))
        self._workers = found
        self._durables_of = durables
        consumers = [self._consumer(each) for each in self._declared]
        await self._add_ages(consumers)
        shown = (
            self._streams
            if self._scope.all_streams
            else [n for n in self._names if n in self._streams]
        )
        return ServerStatus(
            connection=self._connection,
            server=display_servers(self._client.connected_url, self._connection),
            consumers=consumers,
            streams=[_stream(self._streams[name]) for name in sorted(shown)],
            unclaimed=list(self._unclaimed()),
            workers=self._of_project(found),
        )

    def _of_project(self, found: list[Worker] | None) -> list[Worker] | None:
        return None if found is None else [each for each in found if each.stream in self._names]

    async def _stream_infos(self) -> dict[str, StreamInfo]:
        """All streams of the account; the consumers' own where it may not list them."""
        try:
            infos = await self._jetstream.streams_info()
        except Denied:
            beside = [f"{name}{_DEAD_LETTERS}" for name in self._names]
            asked = await asyncio.gather(*map(self._stream_info, [*self._names, *beside]))
            infos = [each for each in asked if each is not None]
        return {str(each.config.name): each for each in infos}

    async def _stream_info(self, name: str) -> StreamInfo | None:
        try:
            return await self._jetstream.stream_info(name)
        except StreamNotFound:
            return None

    async def _letters_of(self, stream: str) -> dict[str, int] | None:
        """The dead letters of the stream, by the durable that gave them up; None if this user may
        not ask for them."""
        name = f"{stream}{_DEAD_LETTERS}"
        known = self._streams.get(name)
        if known is None or not known.state.messages:
            return {}
        subjects = f"dlq.{stream}."
        try:
            info = await self._jetstream.stream_info(name, f"{subjects}*")
        except StreamNotFound:
            return {}
        except Denied:
            return None
        counts = info.state.subjects or {}
        return {subject.removeprefix(subjects): count for subject, count in counts.items()}

    async def _durables(self) -> dict[str, dict[str, ConsumerInfo]]:
        """The durables of the consumers' streams, by their names."""
        found = await asyncio.gather(*map(self._durables_in, self._names))
        return dict(zip(self._names, found, strict=True))

    async def _durables_in(self, stream: str) -> dict[str, ConsumerInfo]:
        try:
            infos = await self._jetstream.consumers_info(stream)
        except StreamNotFound:
            return {}
        except Denied:
            of_stream = [each for each in self._declared if each.stream == stream]
            names = {each.durable for each in of_stream}
            if any(each.durable_is_derived for each in of_stream):
                names.add(OLDER_DURABLE)
            asked = await asyncio.gather(*(self._durable(stream, name) for name in names))
            infos = [each for each in asked if each is not None]
        return {each.name: each for each in infos if each.config.durable_name}

    async def _durable(self, stream: str, name: str) -> ConsumerInfo | None:
        try:
            return await self._jetstream.consumer_info(stream, name)
        except (ConsumerGone, StreamNotFound):
            return None

    def _consumer(self, options: ConsumerOptions) -> ConsumerStatus:
        each = _unknown(options)
        info = self._info(options)
        if options.ephemeral is not None:
            each.durable, each.state = EPHEMERAL, "idle"
            each.workers = self._workers_of(options.stream, None, options.name)
            if each.workers:
                each.state = "consumed"
        elif info is None:
            each.state = "missing"
            each.workers = self._workers_of(options.stream, options.durable)
        else:
            self._fill(each, options, info)
        each.dead_letters = self._dead_letters(options, each.durable)
        return each

    def _dead_letters(self, options: ConsumerOptions, durable: str) -> int | None:
        letters = self._letters[options.stream]
        if letters is None:
            return None
        if options.ephemeral is None:
            return letters.get(durable, 0)
        return sum(count for name, count in letters.items() if is_sibling(name, options.durable))

    def _info(self, options: ConsumerOptions) -> ConsumerInfo | None:
        infos = self._durables_of[options.stream]
        info = infos.get(options.durable)
        inherits = info is None and options.durable_is_derived
        return infos.get(OLDER_DURABLE) if inherits else info

    def _fill(self, each: ConsumerStatus, options: ConsumerOptions, info: ConsumerInfo) -> None:
        each.durable = info.name
        each.pending, each.ack_pending = info.num_pending, info.num_ack_pending
        each.redelivered, each.delivered = info.num_redelivered, info.delivered.consumer_seq
        limit = info.config.max_ack_pending or 0
        each.ack_pending_limit = limit if limit > 0 else None
        each.paused_seconds = (info.pause_remaining or 0) / 1e9 if info.paused else 0.0
        each.workers = self._workers_of(info.stream_name, info.name)
        each.state = self._state(each, info)
        each.differs = self._differs(options, info)
        is_behind = info.num_pending or info.num_ack_pending
        each.oldest_seconds = None if is_behind else 0.0

    async def _add_ages(self, consumers: list[ConsumerStatus]) -> None:
        """Ask for the age of the oldest message of those that are behind."""
        behind = [
            (each, options)
            for each, options in zip(consumers, self._declared, strict=True)
            if each.oldest_seconds is None and each.pending is not None
        ]
        behind.sort(key=lambda pair: -(pair[0].pending or 0))
        asked = behind[: self._scope.ages]
        ages = await asyncio.gather(*(self._oldest(options) for _, options in asked))
        for (each, _), age in zip(asked, ages, strict=True):
            each.oldest_seconds = age

    def _state(self, each: ConsumerStatus, info: ConsumerInfo) -> str:
        if info.paused:
            return "paused"
        if is_listened_to(info) or each.workers or (each.workers is None and _is_lately(info)):
            return "consumed"
        return "unattended" if info.num_pending or info.num_ack_pending else "idle"

    def _workers_of(self, stream: str, durable: str | None, name: str = "") -> int | None:
        if self._workers is None:
            return None
        return sum(
            each.stream == stream
            and (each.durable == durable if durable else each.consumer == name)
            for each in self._workers
        )

    def _differs(self, options: ConsumerOptions, info: ConsumerInfo) -> list[str]:
        stream = self._streams.get(options.stream)
        if stream is None:
            return []
        if options.stream not in self._stream_json:
            self._stream_json[options.stream] = _json(stream.as_dict())
        changes, refusal = _native.plan_known_durable(
            options, _json(info.as_dict()), self._stream_json[options.stream]
        )
        told = [f"{name}: {before} -> {after}" for name, before, after in changes]
        return told if refusal is None else [refusal]

    async def _oldest(self, options: ConsumerOptions) -> float | None:
        """The age of the oldest message that is not settled; 0 without one."""
        info = self._info(options)
        stream = self._streams.get(options.stream)
        state = stream.state if stream else None
        filters = options.filter_subjects or [">"]
        is_large = state is None or state.bytes > _LARGE * max(state.messages, 1)
        if info is None or is_large or len(filters) > _MOST_FILTERS:
            return None
        floor = info.ack_floor.stream_seq
        asked = [self._stored(options.stream, floor + 1, subject) for subject in filters]
        times = [each for each in await asyncio.gather(*asked) if each is not None]
        return max((datetime.now(UTC) - min(times)).total_seconds(), 0.0) if times else 0.0

    async def _stored(self, stream: str, sequence: int, subject: str) -> datetime | None:
        try:
            found = await self._jetstream.get_msg(stream, sequence, subject, next=True)
        except (NotFound, StreamNotFound):
            return None
        return found.time

    def _unclaimed(self) -> Iterable[Unclaimed]:
        for stream, infos in self._durables_of.items():
            claimed = claims(stream, infos, self._of_connection)
            for name, info in sorted(infos.items()):
                # The server deletes one with a threshold by itself.
                if name in claimed or info.config.inactive_threshold:
                    continue
                yield Unclaimed(
                    stream=stream,
                    durable=name,
                    pending=info.num_pending,
                    active_seconds=_age(last_active(info)),
                )


def _stream(info: StreamInfo) -> StreamStatus:
    def limit(value: int | None) -> int | None:
        return value if value and value > 0 else None

    return StreamStatus(
        name=str(info.config.name),
        messages=info.state.messages,
        bytes=info.state.bytes,
        max_messages=limit(info.config.max_msgs),
        max_bytes=limit(info.config.max_bytes),
        replicas=info.config.num_replicas or 1,
        leader=info.cluster.leader if info.cluster and info.cluster.raft_group else None,
    )


def _is_lately(info: ConsumerInfo) -> bool:
    age = _age(last_active(info))
    return age is not None and age < _LATELY


def _age(moment: datetime | None) -> float | None:
    return None if moment is None else (datetime.now(UTC) - moment).total_seconds()


def _json(value: object) -> bytes:
    return json.dumps(value, default=str).encode()
