"""Pause, resume, move and delete durables."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nats_consumer.api import ConsumerInfo, DeliverPolicy
from nats_consumer.exceptions import BadRequest, NotFound, NotPossible

from .fleet import workers

if TYPE_CHECKING:
    from nats_consumer.client import Client

    from .declared import Durable

_PAUSE_SINCE = (2, 11)
_RESET_SINCE = (2, 14)
# In seconds. The request for it must arrive before its end.
_SHORT_PAUSE = 0.5

# The server lets a durable of these begin at its start or later, and one of `all` anywhere.
_FROM_ITS_START = (DeliverPolicy.BY_START_SEQUENCE, DeliverPolicy.BY_START_TIME)


@dataclass(frozen=True, kw_only=True)
class Seek:
    """A move of a durable. `sequence` is the first message of the stream to deliver then. At most
    `again` messages that were delivered are delivered again, and at most `skipped` ones that are
    not settled are left out."""

    sequence: int
    again: int
    skipped: int


async def pause(client: "Client", durable: "Durable", until: datetime) -> datetime:
    """Have the server deliver nothing until then, retries included; return the time that it took
    note of. Raises NotPossible and StreamError."""
    _check_version(client, "pausing", _PAUSE_SINCE)
    if until <= datetime.now(UTC):
        raise NotPossible(f"The end of the pause, {written(until)}, has passed already.")
    paused = await client.jetstream().pause_consumer(durable.stream, durable.name, until)
    return datetime.fromisoformat(paused.pause_until or "").astimezone(UTC)


async def resume(client: "Client", durable: "Durable") -> None:
    """Have the server deliver again. Raises NotPossible if it is not paused, and StreamError."""
    jetstream = client.jetstream()
    info = await jetstream.consumer_info(durable.stream, durable.name)
    if not info.paused:
        raise NotPossible(f"The durable {durable} is not paused.")
    if not info.config.deliver_subject:
        await jetstream.resume_consumer(durable.stream, durable.name)
        return
    # A server that resumes a push consumer at once sends it nothing until the next message is
    # stored; where the pause runs out, it does (seen on 2.15.1).
    end = _now_at_server(info) + timedelta(seconds=_SHORT_PAUSE)
    await jetstream.pause_consumer(durable.stream, durable.name, end)
    while (await jetstream.consumer_info(durable.stream, durable.name)).paused:  # noqa: ASYNC110
        await asyncio.sleep(_SHORT_PAUSE / 5)


async def reset(client: "Client", durable: "Durable") -> ConsumerInfo:
    """Have the server forget deliveries that are not settled: they come again, as first attempts.
    Raises NotPossible and StreamError."""
    _check_version(client, "resetting", _RESET_SINCE)
    jetstream = client.jetstream()
    # Without the durable, the server does not answer the other request (seen on 2.15.1).
    await jetstream.consumer_info(durable.stream, durable.name)
    return (await jetstream.reset_consumer(durable.stream, durable.name)).info


async def sequence_at(client: "Client", durable: "Durable", time: datetime) -> int:
    """The first message of the stream that was stored at `time` or later; the next one to come
    without such a message. Raises StreamError."""
    jetstream = client.jetstream()
    try:
        return (await jetstream.first_msg_since(durable.stream, time)).seq
    except NotFound:
        return await end_of(client, durable)


async def end_of(client: "Client", durable: "Durable") -> int:
    """The sequence of the next message that the stream will store. Raises StreamError."""
    return (await client.jetstream().stream_info(durable.stream)).state.last_seq + 1


async def planned_seek(client: "Client", durable: "Durable", sequence: int) -> Seek:
    """The effect that a move to `sequence` would have. Raises NotPossible where the server would
    refuse it, and StreamError."""
    _check_version(client, "moving", _RESET_SINCE)
    jetstream = client.jetstream()
    info = await jetstream.consumer_info(durable.stream, durable.name)
    _check_start(durable, info, sequence)
    state = (await jetstream.stream_info(durable.stream)).state
    if sequence > state.last_seq + 1:
        raise NotPossible(
            f"The last message of the stream {durable.stream} is {state.last_seq}. From message "
            f"{sequence} on, the durable {durable} would skip messages that are not stored yet."
        )
    # A durable that was moved beyond the end has delivered nothing there.
    delivered = min(info.delivered.stream_seq, state.last_seq)
    settled = max(info.ack_floor.stream_seq, state.first_seq - 1)
    return Seek(
        sequence=sequence,
        again=max(0, delivered - max(sequence, state.first_seq) + 1),
        skipped=max(0, min(sequence - 1, state.last_seq) - settled),
    )


async def seek(client: "Client", durable: "Durable", sequence: int) -> ConsumerInfo:
    """Move the durable: the next message is the first one from `sequence` on. Raises NotPossible
    and StreamError."""
    try:
        moved = await client.jetstream().reset_consumer(durable.stream, durable.name, sequence)
    except BadRequest as error:
        info = await client.jetstream().consumer_info(durable.stream, durable.name)
        raise _cannot_begin(durable, info, sequence) from error
    return moved.info


async def delete(client: "Client", durable: "Durable") -> None:
    """Delete the durable with its position. Raises StreamError."""
    await client.jetstream().delete_consumer(durable.stream, durable.name)


def is_listened_to(info: ConsumerInfo) -> bool:
    """Whether the server sees somebody who takes messages: a pull request that waits, or a
    subscription. A pull consumer whose handlers are all busy has no request."""
    return bool(info.num_waiting or info.push_bound)


def last_active(info: ConsumerInfo) -> datetime | None:
    """When it delivered a message or one was settled, for the last time; None if never."""
    moments = (info.delivered.last_active, info.ack_floor.last_active)
    return max((each for each in moments if each is not None), default=None)


def written(moment: datetime) -> str:
    """The time as commands print it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


async def is_read(client: "Client", durable: "Durable", info: ConsumerInfo) -> bool:
    """Whether somebody takes messages, as the server sees it, or as a worker says."""
    return is_listened_to(info) or any(
        (each.stream, each.durable) == (durable.stream, durable.name)
        for each in await workers(client) or ()
    )


def _now_at_server(info: ConsumerInfo) -> datetime:
    """The clock of the server when it told of a paused durable."""
    end = datetime.fromisoformat(info.config.pause_until or "")
    return end - timedelta(seconds=(info.pause_remaining or 0) / 1e9)


def _check_version(client: "Client", doing: str, since: tuple[int, int]) -> None:
    version = client.connected_server_version
    if (version.major, version.minor) < since:
        raise NotPossible(
            f"{doing.capitalize()} a durable needs nats-server {since[0]}.{since[1]}, and this is "
            f"{version}."
        )


def _check_start(durable: "Durable", info: ConsumerInfo, sequence: int) -> None:
    policy = info.config.deliver_policy
    is_earlier = sequence < (info.config.opt_start_seq or 0)
    may_be = policy == DeliverPolicy.ALL or (policy in _FROM_ITS_START and not is_earlier)
    if not may_be:
        raise _cannot_begin(durable, info, sequence)


def _cannot_begin(durable: "Durable", info: ConsumerInfo, sequence: int) -> NotPossible:
    policy, start = info.config.deliver_policy, info.config.opt_start_seq
    since = f" and opt_start_seq {start}, and cannot begin earlier" if start else ""
    return NotPossible(
        f"The server does not move the durable {durable} to message {sequence}: it was created "
        f"with deliver_policy {str(policy)!r}{since}. To begin there, stop its workers, delete the "
        "durable, set deliver_policy = 'by_start_sequence' and start_sequence = "
        f"{sequence} in its class, and start them again."
    )
