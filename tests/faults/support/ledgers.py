"""Ledgers of several parties, written independently, to be compared by the checker."""

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.faults.support.witness import Stored


@dataclass(frozen=True)
class Try:
    """One try to publish an order, and what came of it: TRY, then STORED or UNKNOWN."""

    id: str
    event: str
    at: float
    seq: int = 0
    duplicate: bool = False


@dataclass(frozen=True)
class Step:
    """A handler's START, and its DONE, FAIL or CANCELLED."""

    id: str
    event: str
    at: float
    consumer: str
    seq: int
    delivery: int
    pid: int


@dataclass(frozen=True)
class Fault:
    """Something that was done to the system, from `began` to `healed`, both monotonic seconds.

    `pid` is the one worker it happened to; None means that it may have met anybody. `forgets` is
    whether the server may have lost count of its deliveries: otherwise an older one never starts
    after a newer one."""

    kind: str
    began: float
    healed: float
    pid: int | None = None
    loses_acks: bool = True
    forgets: bool = True

    def since(self, seconds: float) -> "Fault":
        """The fault, if it also undoes steps of this number of seconds before."""
        return replace(self, began=self.began - seconds)


@dataclass(frozen=True)
class Stop:
    """A worker that was asked to stop: when, when it was gone, and its exit code."""

    pid: int
    asked: float
    gone: float
    grace: float
    code: int


@dataclass(frozen=True)
class Policy:
    """Promises of the consumers: seconds, and attempts."""

    ack_wait: float
    attempts: int
    longest_retry: float = 0.0


@dataclass(frozen=True)
class Ledgers:
    """Everything that is known of one run."""

    policy: Policy
    published: list[Try]
    handled: list[Step]
    stream: list[Stored]
    dead: list[Stored]
    ended: dict[str, set[int]]
    """By durable: the sequences that the server was told to end."""
    lag: dict[str, int]
    """By durable: what the server has not delivered, or has no settlement of."""
    effects: Counter[tuple[str, str]]
    """By consumer and order: rows in the database."""
    faults: list[Fault] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)


class Handled:
    """The ledger of the handlers, which is read on from where it was read last."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "handled.jsonl"
        self._position = 0
        self._steps: list[Step] = []

    def steps(self) -> list[Step]:
        """All steps so far."""
        lines, self._position = _lines(self._path, self._position)
        names = ("id", "event", "at", "consumer", "seq", "delivery", "pid")
        self._steps += [Step(**_some(json.loads(line), names)) for line in lines]
        return self._steps


def read(folder: Path, ledger: str) -> list[dict[str, Any]]:
    """The lines of a ledger; none if nobody wrote any."""
    lines, _ = _lines(folder / f"{ledger}.jsonl", 0)
    return [json.loads(line) for line in lines]


def _lines(path: Path, position: int) -> tuple[list[bytes], int]:
    """The lines of a file from there on, and where the next one begins."""
    if not path.exists():
        return [], position
    with path.open("rb") as file:
        file.seek(position)
        # A write that goes over the end of a page is seen in parts: what has no end yet is to come.
        written, end, _ = file.read().rpartition(b"\n")
    return written.splitlines(), position + len(written) + len(end)


def tries(folder: Path) -> list[Try]:
    """The ledger of the producers."""
    names = ("id", "event", "at", "seq", "duplicate")
    return [Try(**_some(entry, names)) for entry in read(folder, "published")]


def _some(entry: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: entry[name] for name in names if name in entry}
