"""All durables of the streams that the project's consumers read."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from nats_consumer.api import ConsumerInfo
from nats_consumer.client import Client, get_nats_client
from nats_consumer.connect.resolve import display_servers
from nats_consumer.declare.options import ConsumerOptions
from nats_consumer.exceptions import StreamNotFound

from .declared import declared_options
from .durables import is_listened_to, last_active

# The durable of a class that names none, in older versions. The engine takes it over if there is no
# other (engine/src/bind/durable.rs).
OLDER_DURABLE = "default"

HEADING = ("durable", "consumer", "pending", "unsettled", "read", "active", "state")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A durable at its server, with the class that declares it, or None."""

    info: ConsumerInfo
    consumer: str | None


async def listed(using: str | None = None) -> dict[str, dict[str, list[Listed]]]:
    """The durables by server and stream: of each connection that a consumer uses, or of `using`.
    Raises Unreachable and StreamError."""
    by_connection: dict[str, list[ConsumerOptions]] = defaultdict(list)
    for options in declared_options(using=using):
        by_connection[options.connection].append(options)
    return dict([await _on(connection, of) for connection, of in by_connection.items()])


async def _on(
    connection: str, declared: list[ConsumerOptions]
) -> tuple[str, dict[str, list[Listed]]]:
    async with await get_nats_client(using=connection) as client:
        streams = sorted({each.stream for each in declared})
        found = await asyncio.gather(*(durables_of(client, stream) for stream in streams))
        server = display_servers(client.connected_url, connection)
    return server, {
        stream: _listed(stream, infos, declared)
        for stream, infos in zip(streams, found, strict=True)
    }


def _listed(
    stream: str, infos: list[ConsumerInfo], declared: list[ConsumerOptions]
) -> list[Listed]:
    claimed = claims(stream, (info.name for info in infos), declared)
    return [Listed(info=info, consumer=claimed.get(info.name)) for info in infos]


async def durables_of(client: Client, stream: str) -> list[ConsumerInfo]:
    """All durables of the stream by name; none if it does not exist. Raises StreamError."""
    try:
        infos = await client.jetstream().consumers_info(stream)
    except StreamNotFound:
        return []
    return sorted((each for each in infos if each.config.durable_name), key=lambda each: each.name)


def claims(
    stream: str, names: Iterable[str], declared: Iterable[ConsumerOptions]
) -> dict[str, str]:
    """The class of each durable of the stream that one declares. `names` are all its durables."""
    known = set(names)
    found: dict[str, str] = {}
    for options in declared:
        if options.stream == stream:
            inherits = options.durable_is_derived and options.durable not in known
            found[OLDER_DURABLE if inherits else options.durable] = options.name
    return found


def row(listed: Listed) -> tuple[str, ...]:
    """The cells of the durable's row."""
    info = listed.info
    return (
        info.name,
        listed.consumer or "-",
        str(info.num_pending),
        str(info.num_ack_pending),
        "yes" if is_listened_to(info) else "no",
        ago(last_active(info)),
        state_of(info),
    )


def state_of(info: ConsumerInfo) -> str:
    """The state of a pause, for a table."""
    return f"paused for {duration((info.pause_remaining or 0) / 1e9)}" if info.paused else ""


def ago(moment: datetime | None) -> str:
    """How long ago it was, for a table."""
    if moment is None:
        return "never"
    return f"{duration((datetime.now(UTC) - moment).total_seconds())} ago"


def duration(seconds: float) -> str:
    """A duration in one unit, for a table."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
