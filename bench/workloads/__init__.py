"""The workloads."""

import json
from dataclasses import dataclass

from workloads.lineup import (
    BLOCKING,
    ENGINE,
    GIVING_UP,
    HUGE,
    IDLE,
    LARGE,
    LIMITS,
    NATS_PY,
    OTHERS,
    OURS,
    OURS_DEF,
    OURS_TYPED,
    OURS_VARIED,
    OUTBOX,
    OXNATS,
    OXNATS_ON_ASYNCIO,
    PROCESSES,
    PUBLISHERS,
    REPLICATED,
    ROUTING,
    STARTING,
    TIMED,
    TYPED,
    WAITING,
    WAKING,
    Contestant,
)

_JSON = json.dumps({"id": 4711, "name": "x" * 104})


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A backlog to consume, a pace to keep up with, or an operation."""

    name: str
    title: str
    messages: int = 0
    contestants: list[Contestant]
    work: str = ""
    """The handler: see `contestants.work`."""
    payload: str = _JSON
    repeat: int = 1
    """How often it stands in a message: a large one is too long for a command line."""
    subjects: int = 4
    rate: int = 0
    """Messages a second to publish while the contestant runs; 0 is a backlog."""
    publishes: bool = False
    """Whether the contestants publish instead of consuming."""
    backlogs: int = 1
    """How often the backlog is stored again for the same process."""
    is_about_memory: bool = False
    """Whether it is the growth of memory that the table and the chart show."""
    operation: str = ""
    """What is done instead of consuming or publishing: see `harness.operations`. It has figures of
    its own."""
    rounds: int = 0
    """How many rounds, where it is another number than that of the command line."""
    quick: tuple[Contestant, ...] = ()
    """Who takes part in a quick run."""

    @property
    def bytes(self) -> int:
        """The size of a message."""
        return len(self.payload) * self.repeat

    @property
    def is_backlog(self) -> bool:
        """Whether the messages are there before the contestant is."""
        return not (self.rate or self.publishes)


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
                *OURS_TYPED,
                *OURS_DEF,
                *OXNATS,
                *OXNATS_ON_ASYNCIO,
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
            contestants=[*LIMITS, *ENGINE, *OURS, *OXNATS, *NATS_PY],
        ),
        Workload(
            name="C",
            title="a handler that awaits 1 ms, 100 at once: 100,000/s would be ideal",
            messages=100_000,
            work="wait",
            contestants=WAITING,
        ),
        Workload(
            name="D",
            title="latency from publishing to the handler at 1,000 messages a second",
            messages=5_000,
            rate=1_000,
            work="stamp",
            contestants=TIMED,
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
            title="blocking handlers: nothing at all, and one insert into a database",
            messages=40_000,
            work="nothing",
            contestants=BLOCKING,
        ),
        Workload(
            name="G",
            title="the backlog of A shared by one and by two processes",
            messages=200_000,
            work="parse",
            contestants=PROCESSES,
        ),
        Workload(
            name="H",
            title="payloads of 100 KiB",
            messages=4_000,
            payload="x" * 1024,
            repeat=100,
            work="read",
            contestants=LARGE,
        ),
        Workload(
            name="I",
            title="routing through a ConsumerHandler with a method for each subject",
            messages=200_000,
            work="route",
            contestants=ROUTING,
        ),
        Workload(
            name="K",
            title="payloads of 1 MiB and handlers that await 100 ms: memory is bounded by bytes",
            messages=400,
            payload="x" * 1023,
            repeat=1024,
            work="slow",
            is_about_memory=True,
            contestants=HUGE,
        ),
        Workload(
            name="M",
            title="10 million messages in one process: a backlog of a million, ten times",
            messages=1_000_000,
            work="nothing",
            backlogs=10,
            rounds=1,
            is_about_memory=True,
            contestants=OURS[:1],
        ),
        Workload(
            name="N",
            title="transactions on PostgreSQL with and without the outbox, and its relay",
            messages=40_000,
            work="relay",
            publishes=True,
            contestants=OUTBOX,
        ),
        Workload(
            name="O",
            title="the backlog of A; typed payloads",
            messages=200_000,
            work="parse",
            contestants=TYPED,
        ),
        Workload(
            name="P",
            title="50 idle consumers in one worker",
            operation="rest",
            rounds=1,
            contestants=IDLE,
        ),
        Workload(
            name="Q",
            title="start-up: seconds until all consumers of a worker are ready",
            operation="start",
            contestants=STARTING,
        ),
        Workload(
            name="R",
            title="200,000 dead letters: stored, listed, and 10,000 of them replayed",
            operation="dead letters",
            contestants=GIVING_UP,
        ),
        Workload(
            name="S",
            title="50 consumers after an outage: seconds from the server's return",
            operation="wake",
            contestants=WAKING,
        ),
        Workload(
            name="T",
            title="a cluster of three nodes with three replicas, beside one node",
            operation="replicate",
            contestants=REPLICATED,
        ),
    ]
}
