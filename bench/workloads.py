"""What is measured."""

import json
from dataclasses import dataclass

from lineup import EVERYBODY, Contestant

_JSON = json.dumps({"id": 1, "customer": 4711, "total": "99.90", "note": "x" * 68})


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A backlog to consume, or a pace to keep up with."""

    name: str
    title: str
    messages: int
    work: str
    """The handler: see `contestants.work`."""
    contestants: tuple[str, ...]
    payload: str = _JSON
    subjects: int = 4
    rate: int = 0
    """Messages a second to publish while the contestant runs; 0 is a backlog."""
    quick: tuple[str, ...] = ()
    """Who takes part in a quick run."""

    def members(self, quick: bool) -> list[Contestant]:
        """Who takes part."""
        return [EVERYBODY[name] for name in (self.quick if quick else self.contestants)]


_LIMITS = ("async-nats pull (Rust)", "async-nats push (Rust)")
_OURS = ("ours pull", "ours push")

WORKLOADS = {
    each.name: each
    for each in [
        Workload(
            name="A",
            title="a backlog of 128-byte JSON on four subjects; the handler parses and counts",
            messages=200_000,
            work="parse",
            contestants=tuple(EVERYBODY),
            quick=(*_LIMITS, *_OURS, "oxnats pull", "oxnats push"),
        ),
    ]
}
