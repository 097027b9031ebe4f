"""Which dead letters are meant: the struct that the engine reads."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which dead letters are meant: those that fit everything that is given. `consumer` is the
    durable that gave the message up, `reason` a text that the reason contains; ages are seconds
    since the dead letter was stored."""

    consumer: str | None = None
    reason: str | None = None
    older_than: float | None = None
    newer_than: float | None = None
