"""Judgement of a status, with the exit codes of Nagios."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from .status import ConsumerStatus, ServerStatus


class Level(IntEnum):
    """An exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most messages that are not settled, age in seconds of the oldest, and number of dead letters;
    None is no limit."""

    pending: int | None = None
    oldest: float | None = None
    dead: int | None = None


def problems(
    servers: list[ServerStatus], limits: Limits, others: Iterable[tuple[Level, str]] = ()
) -> list[tuple[Level, str]]:
    """Everything that is wrong, and `others`, the worst first."""
    found = [*others, *(each for server in servers for each in _of_server(server, limits))]
    return sorted(found, key=lambda each: (-each[0], each[1]))


def _of_server(server: ServerStatus, limits: Limits) -> list[tuple[Level, str]]:
    if server.error is not None:
        return [(Level.UNKNOWN, f"connection {server.connection}: {server.error}")]
    found = [each for consumer in server.consumers for each in _of_consumer(consumer, limits)]
    return found + [
        (Level.WARNING, f"no class declares the durable {each.stream}/{each.durable}")
        for each in server.unclaimed
    ]


def _of_consumer(it: ConsumerStatus, limits: Limits) -> list[tuple[Level, str]]:
    found = [(Level.WARNING, f"{it.consumer} differs: {each}") for each in it.differs]
    behind = (it.pending or 0) + (it.ack_pending or 0)
    if it.state == "missing":
        found.append((Level.CRITICAL, f"{it.consumer}: {it.stream}/{it.durable} is missing"))
    if it.state == "unattended":
        text = f"{it.consumer}: no worker reads, and {behind} messages wait"
        found.append((Level.CRITICAL, text))
    for name, value, most in (
        ("messages not settled", behind, limits.pending),
        ("seconds since the oldest was stored", it.oldest_seconds, limits.oldest),
        ("dead letters", it.dead_letters, limits.dead),
    ):
        if most is not None and value is not None and value > most:
            text = f"{it.consumer}: {value:.0f} {name}, more than {most:g}"
            found.append((Level.CRITICAL, text))
    return found
