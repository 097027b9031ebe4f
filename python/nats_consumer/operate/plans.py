"""Plans: what --setup and the start of the workers would change on the servers, and doing it.

The plan of a durable is made by the engine with the function that binds it (engine/src/bind), so
that plan and worker cannot differ."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nats_consumer.api import StreamInfo
from nats_consumer.client import get_nats_client
from nats_consumer.connect.resolve import display_servers
from nats_consumer.declare import registry
from nats_consumer.declare.options import ConsumerOptions, consumer_options
from nats_consumer.declare.signatures import made_without_arguments
from nats_consumer.exceptions import NotPossible, StreamNotFound
from nats_consumer.run.keep_running import setup_operations
from nats_consumer.streams.operation import StreamOperation
from nats_consumer.streams.operations import CreateConsumer, CreateStream, DeleteConsumer
from nats_consumer.streams.plan import (
    Change,
    Mark,
    Planned,
    mark_of,
    stream_changes,
    uncovered,
)

from .declared import options_of
from .durables import last_active
from .listing import ago, claims, durables_of

if TYPE_CHECKING:
    from nats_consumer.client import Client

_STREAM, _DURABLE, _OPERATION = "stream", "durable", "operation"


@dataclass(frozen=True, kw_only=True)
class Declared:
    """Everything that the project declares for one connection."""

    operations: list[StreamOperation] = field(default_factory=list)
    consumers: list[ConsumerOptions] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Coming:
    """Streams that earlier objects of a plan create, and how many durables they add to each."""

    streams: set[str] = field(default_factory=set)
    durables: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class ServerPlan:
    """The plan for the server of one connection, in the order in which it is done."""

    connection: str
    server: str
    objects: list[Planned]


async def declared(names: Iterable[str] | None, using: str | None) -> dict[str, Declared]:
    """The operations and consumers of the classes called `names`, or of all, by connection. Raises
    ConfigurationError and ConsumerNotFound."""
    found: dict[str, Declared] = defaultdict(Declared)
    for consumer in registry.consumers_named(names):
        made = made_without_arguments(consumer)
        options = consumer_options(made)
        found[options.connection].consumers.append(options)
        for operation in await setup_operations(made):
            found[operation.using or options.connection].operations.append(operation)
    return {each: found[each] for each in found if using in (None, each)}


async def plans(names: Iterable[str] | None, using: str | None = None) -> list[ServerPlan]:
    """The plan for each server. Raises NatsConsumerError."""
    return [
        await _plan_of(connection, each)
        for connection, each in (await declared(names, using)).items()
    ]


async def apply(
    plan: ServerPlan, names: Iterable[str] | None, allowed: set[Mark]
) -> AsyncIterator[Planned]:
    """Do what has one of the `allowed` marks, and yield each object that is done. Looks again
    before each, and raises NotPossible if it is not as it was planned."""
    of_connection = (await declared(names, plan.connection))[plan.connection]
    planned = {(each.kind, each.name): each for each in plan.objects}
    async with await get_nats_client(using=plan.connection) as client:
        for name, operations in _by_stream(of_connection.operations).items():
            each = planned[_STREAM, name]
            if each.mark in allowed:
                _check(each, await _planned_stream(client, name, operations))
                for operation in operations:
                    await operation.execute(client)
                yield each
        for operation in _beside_streams(of_connection):
            each = planned.get((_DURABLE, _durable_name(operation)), _NOTHING)
            if isinstance(operation, CreateConsumer) and each.mark in allowed:
                await operation.execute(client)
                yield each
        for options in of_connection.consumers:
            if options.ephemeral is not None:
                continue
            now = await _planned_durable(client, options, Coming())
            each = planned.get((_DURABLE, now.name), _NOTHING)
            if each.mark in allowed:
                _check(each, now)
                await client._connection.apply_durable(options)
                yield each


_NOTHING = Planned(mark=Mark.KEEP, kind="", name="")


def _check(planned: Planned, now: Planned) -> None:
    if (planned.mark, planned.changes) != (now.mark, now.changes):
        raise NotPossible(
            f"The {planned.kind} {planned.name} has changed on the server since the plan was made. "
            "Make another plan."
        )


async def _plan_of(connection: str, found: Declared) -> ServerPlan:
    async with await get_nats_client(using=connection) as client:
        server = display_servers(client.connected_url, connection)
        objects = [each async for each in _objects(client, found)]
    return ServerPlan(connection=connection, server=server, objects=objects)


async def _objects(client: "Client", found: Declared) -> AsyncIterator[Planned]:
    coming = Coming()
    for name, operations in _by_stream(found.operations).items():
        planned = await _planned_stream(client, name, operations)
        if planned.mark == Mark.CREATE:
            coming.streams.add(name)
        yield planned
    for operation in _beside_streams(found):
        yield await _planned_operation(client, operation, coming)
    for each in await _durables_of_classes(client, found.consumers, coming):
        yield each
    async for unclaimed in _unclaimed(client, found):
        yield unclaimed


async def _durables_of_classes(
    client: "Client", consumers: Iterable[ConsumerOptions], coming: Coming
) -> list[Planned]:
    """The plan of each durable that classes declare. One that several would share has an x."""
    found: dict[str, Planned] = {}
    users: dict[str, list[str]] = defaultdict(list)
    for options in consumers:
        if options.ephemeral is None:
            planned = await _planned_durable(client, options, coming)
            users[planned.name].append(options.name)
            found[planned.name] = planned
    return [
        each if len(users[name]) == 1 else _shared(name, users[name])
        for name, each in found.items()
    ]


def _shared(name: str, users: list[str]) -> Planned:
    remark = (
        f"{' and '.join(users)} share it, so each would get only a part of the messages. Give each "
        "its own durable_name"
    )
    return Planned(mark=Mark.STUCK, kind=_DURABLE, name=name, remark=remark)


def _beside_streams(found: Declared) -> Iterator[StreamOperation]:
    """The operations that are not on a stream. A durable that a class declares is made as the class
    says, and one that several operations create is made by the first."""
    known = {f"{each.stream}/{each.durable}" for each in found.consumers if each.ephemeral is None}
    for operation in found.operations:
        if operation.stream_name is not None:
            continue
        if isinstance(operation, CreateConsumer):
            if _durable_name(operation) in known:
                continue
            known.add(_durable_name(operation))
        yield operation


def _by_stream(operations: Iterable[StreamOperation]) -> dict[str, list[StreamOperation]]:
    """The operations that tell how they leave a stream, by its name."""
    found: dict[str, list[StreamOperation]] = defaultdict(list)
    for operation in operations:
        if operation.stream_name is not None:
            found[operation.stream_name].append(operation)
    return found


async def _planned_stream(
    client: "Client", name: str, operations: list[StreamOperation]
) -> Planned:
    info = await _stream_info(client, name)
    before = None if info is None else info.config.as_dict()
    after: Mapping[str, Any] | None = before
    for operation in operations:
        after = operation.after(after)
    if after is None:
        remark = "" if info is None else f"{info.state.messages} messages; only --setup deletes it"
        mark = Mark.KEEP if before is None else Mark.DELETE
        return Planned(mark=mark, kind=_STREAM, name=name, remark=remark)
    changes = tuple(stream_changes(before or {"name": name}, after))
    overlapping = await _overlapping(client, name, before, after)
    mark = Mark.CREATE if before is None else mark_of(changes)
    if overlapping:
        mark = Mark.STUCK
    elif mark == Mark.STUCK:
        overlapping = "keep the server's value, use another name, or delete the stream first"
    remark = "; ".join(filter(None, (overlapping, _left(operations, before, after))))
    return Planned(mark=mark, kind=_STREAM, name=name, changes=changes, remark=remark)


def _left(
    operations: Iterable[StreamOperation],
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any],
) -> str:
    """The fields that a CreateStream asks for and no operation makes so, in words."""
    asked: Mapping[str, Any] | None = before
    for operation in operations:
        if isinstance(operation, CreateStream) and asked is not None:
            asked = operation.asked(asked)
        else:
            asked = operation.after(asked)
    missing = uncovered((asked or {}).get("subjects") or (), after.get("subjects") or ())
    different = [
        f"{each.field} stays {each.before}, not {each.after}"
        for each in stream_changes(after, asked or after)
        if each.field != "subjects"
    ]
    told = [*(f"{each} is not added to its subjects" for each in missing), *different]
    if not told:
        return ""
    return (
        f"CreateStream does not change an existing stream: {', '.join(told)}. To change it, use "
        "CreateOrUpdateStream or UpdateStream"
    )


async def _overlapping(
    client: "Client", name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any]
) -> str:
    """The other streams that have the new subjects, in words."""
    new = set(after.get("subjects") or ()) - set((before or {}).get("subjects") or ())
    owners = [
        f"{subject} belongs to stream {owner}"
        for subject in sorted(new)
        for owner in await client.jetstream().stream_names(subject)
        if owner != name
    ]
    return "; ".join(owners)


async def _planned_operation(
    client: "Client", operation: StreamOperation, coming: Coming
) -> Planned:
    """The plan of an operation that is not one on a stream."""
    if not isinstance(operation, CreateConsumer | DeleteConsumer):
        remark = "runs code; only --setup executes it"
        return Planned(mark=Mark.CODE, kind=_OPERATION, name=repr(operation), remark=remark)
    infos = {each.name: each for each in await durables_of(client, operation.stream)}
    info = infos.get(operation.name)
    exists = info is not None
    if isinstance(operation, CreateConsumer):
        known = operation.stream in coming.streams or await _stream_info(client, operation.stream)
        mark = Mark.KEEP if exists else Mark.CREATE if known else Mark.STUCK
        coming.durables[operation.stream] += mark == Mark.CREATE
        remark = "" if known else _no_stream(operation.stream)
        if info is not None and (different := operation.differences(info.config)):
            remark = (
                f"CreateConsumer does not change an existing durable: {', '.join(different)} stays"
            )
    else:
        mark = Mark.DELETE if exists else Mark.KEEP
        remark = "only --setup deletes it" if exists else ""
    return Planned(mark=mark, kind=_DURABLE, name=_durable_name(operation), remark=remark)


def _durable_name(operation: StreamOperation) -> str:
    is_one = isinstance(operation, CreateConsumer | DeleteConsumer)
    return f"{operation.stream}/{operation.name}" if is_one else ""  # type: ignore[attr-defined]


async def _planned_durable(client: "Client", options: ConsumerOptions, coming: Coming) -> Planned:
    name = f"{options.stream}/{options.durable}"
    try:
        planned = await client._connection.plan_durable(options)
    except StreamNotFound:
        is_created = options.stream in coming.streams
        mark = Mark.CREATE if is_created else Mark.STUCK
        remark = "" if is_created else _no_stream(options.stream)
        return Planned(mark=mark, kind=_DURABLE, name=name, remark=remark)
    durable, action, fields, reason, skips, unmatched, replaces = planned
    name = f"{options.stream}/{durable}"
    remark = "no subject of its stream matches its filter" if unmatched else ""
    if action == "refuse":
        return Planned(mark=Mark.STUCK, kind=_DURABLE, name=name, remark=reason or "")
    if action == "create":
        if full := await _full(client, options.stream, coming.durables[options.stream]):
            return Planned(mark=Mark.STUCK, kind=_DURABLE, name=name, remark=full)
        coming.durables[options.stream] += 1
        remark = "; ".join(filter(None, (remark, _renamed(options, replaces))))
        return Planned(mark=Mark.CREATE, kind=_DURABLE, name=name, remark=remark)
    changes = tuple(
        Change(field=each, before=before, after=after, mark=_mark(each, skips=skips))
        for each, before, after in fields
    )
    mark = mark_of(changes)
    return Planned(mark=mark, kind=_DURABLE, name=name, changes=changes, remark=remark)


def _renamed(options: ConsumerOptions, replaces: Sequence[str]) -> str:
    """How the class continues a durable that no class declares any more, in words."""
    if not replaces:
        return ""
    every = (options_of(each) for each in registry.consumers())
    claimed = {each.durable for each in every if each.stream == options.stream}
    for old in replaces:
        if old not in claimed:
            return (
                f'if it replaces {old}, write durable_name = "{old}" in {options.name}: it '
                "continues where that durable stands"
            )
    return ""


def _mark(name: str, *, skips: bool) -> Mark:
    return Mark.LOSE if skips and name.startswith("filter_subject") else Mark.CHANGE


async def _full(client: "Client", stream: str, coming: int) -> str:
    info = await _stream_info(client, stream)
    most = (info.config.max_consumers if info else None) or 0
    if info is None or most <= 0 or info.state.consumer_count + coming < most:
        return ""
    count = info.state.consumer_count + coming
    return f"the stream has {count} consumers, and max_consumers is {most}"


async def _unclaimed(client: "Client", found: Declared) -> AsyncIterator[Planned]:
    """The durables of the consumers' streams that nothing declares."""
    of_operations = {_durable_name(each) for each in found.operations}
    of_project = [options_of(each) for each in registry.consumers()]
    for stream in sorted({each.stream for each in found.consumers}):
        infos = await durables_of(client, stream)
        claimed = claims(stream, (info.name for info in infos), of_project)
        for info in infos:
            name = f"{stream}/{info.name}"
            # The server deletes one with a threshold by itself.
            is_claimed = info.name in claimed or name in of_operations
            if not is_claimed and not info.config.inactive_threshold:
                remark = f"no class declares it; last active: {ago(last_active(info))}"
                yield Planned(mark=Mark.UNCLAIMED, kind=_DURABLE, name=name, remark=remark)


async def _stream_info(client: "Client", name: str) -> StreamInfo | None:
    try:
        return await client.jetstream().stream_info(name)
    except StreamNotFound:
        return None


def _no_stream(stream: str) -> str:
    return f"the stream {stream} does not exist, and no setup() creates it"
