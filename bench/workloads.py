"""What is measured."""

import json
from dataclasses import dataclass

from lineup import (
    BLOCKING,
    ENGINE,
    LIMITS,
    NATS_PY,
    OTHERS,
    OURS,
    OURS_DEF,
    OURS_VARIED,
    OXNATS,
    PROCESSES,
    PUBLISHERS,
    ROUTING,
    WAITING,
    Contestant,
)

_JSON = json.dumps({"id": 4711, "name": "x" * 104})


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A backlog to consume, or a pace to keep up with."""

    name: str
    title: str
    messages: int
    work: str
    """The handler: see `contestants.work`."""
    contestants: list[Contestant]
    payload: str = _JSON
    subjects: int = 4
    rate: int = 0
    """Messages a second to publish while the contestant runs; 0 is a backlog."""
    publishes: bool = False
    """Whether the contestants publish instead of consuming."""
    quick: tuple[Contestant, ...] = ()
    """Who takes part in a quick run."""


WORKLOADS = {
    each.name: each
    for each in [
        Workload(
            name="A",
            title="a backlog of 128-byte JSON on four subjects; the handler parses and counts",
            messages=200_000,
            work="parse",
            contestants=[
                *LIMITS,
                *ENGINE,
                *OURS,
                *OURS_VARIED,
                *OURS_DEF,
                *OXNATS,
                *NATS_PY,
                *OTHERS,
            ],
            quick=(*LIMITS, *OURS, *OXNATS),
        ),
        Workload(
            name="B",
            title="the backlog of A; a handler that does nothing",
            messages=200_000,
            work="nothing",
            contestants=[*LIMITS, *ENGINE, *OURS, *OURS_VARIED, *OXNATS, *NATS_PY],
        ),
        Workload(
            name="C",
            title="a handler that awaits 1 ms, 100 at once: 100,000/s would be ideal",
            messages=100_000,
            work="wait",
            contestants=[*LIMITS[:1], *ENGINE[:1], *OURS[:1], *WAITING, *OXNATS[:1], *NATS_PY[:1]],
        ),
        Workload(
            name="D",
            title="latency from publishing to the handler at 1,000 messages a second",
            messages=8_000,
            rate=1_000,
            work="stamp",
            contestants=[*LIMITS, *OURS, *OXNATS, NATS_PY[1]],
        ),
        Workload(
            name="E",
            title="publishing 128 bytes, stored and confirmed",
            messages=100_000,
            work="publish",
            publishes=True,
            contestants=PUBLISHERS,
        ),
        Workload(
            name="F",
            title="blocking handlers: nothing at all, and one insert into SQLite",
            messages=40_000,
            work="nothing",
            contestants=BLOCKING,
        ),
        Workload(
            name="G",
            title="the backlog of A shared by one and by two processes",
            messages=200_000,
            work="parse",
            contestants=[LIMITS[0], OURS[0], *PROCESSES],
        ),
        Workload(
            name="H",
            title="payloads of 100 KiB",
            messages=4_000,
            payload="x" * 100 * 1024,
            work="read",
            contestants=[*LIMITS, *ENGINE, *OURS, *OXNATS],
        ),
        Workload(
            name="I",
            title="routing through a ConsumerHandler with a method for each subject",
            messages=200_000,
            work="route",
            contestants=ROUTING,
        ),
    ]
}
