"""Compares the ledgers of a run: a pure function, so that it can be tested with planted faults."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from tests.faults.support.ledgers import Fault, Ledgers, Step, Stop
from tests.faults.support.witness import Stored

RECOVERY = 15.0
"""Seconds from the end of a fault to the next message that is handled."""
STOPPING = 2.0
"""Seconds beyond its grace that a worker may take to end."""
ACK_FLIGHT = 1.0
"""Seconds after the end of a handler in which a fault may still cost its acknowledgement."""
KEPT_PREFIX = "Dlq-Header-"
_OWN = ("Dlq-Reason", "Dlq-Error", "Dlq-Subject", "Dlq-Stream", "Dlq-Sequence", "Dlq-Consumer")
OWN_HEADERS = (*_OWN, "Dlq-Deliveries", "Dlq-Time", "Nats-Msg-Id")


@dataclass
class Report:
    """Findings: `violations` are sentences, `counts` says how much was looked at."""

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        shown = self.violations[:20]
        more = len(self.violations) - len(shown)
        rest = [f"... and {more} more"] if more else []
        return "\n".join([f"counts: {dict(self.counts)}", *shown, *rest])


def check(ledgers: Ledgers) -> Report:
    """Every invariant, for every consumer."""
    report = Report()
    found = [*_published(ledgers, report), *_stops(ledgers.stops)]
    for consumer in ledgers.lag:
        found += _Consumed(consumer, ledgers, report).violations()
    report.violations = found
    return report


def _published(ledgers: Ledgers, report: Report) -> Iterator[str]:
    tried = {each.id for each in ledgers.published}
    confirmed = {each.id for each in ledgers.published if each.event == "STORED"}
    stored = Counter(_header(each, "Nats-Msg-Id") for each in ledgers.stream)
    report.counts.update(tried=len(tried), confirmed=len(confirmed), stored=stored.total())
    for order in confirmed - set(stored):
        yield f"lost by the stream: {order} was confirmed and is not there"
    for order, count in stored.items():
        if count > 1:
            yield f"stored {count} times: {order}"
        if order not in tried:
            yield f"ghost: {order} is in the stream and was never published"


def _stops(stops: list[Stop]) -> Iterator[str]:
    for stop in stops:
        took = stop.gone - stop.asked
        if took > stop.grace + STOPPING:
            yield f"slow stop: worker {stop.pid} took {took:.1f} s with a grace of {stop.grace:g} s"
        if stop.code != 0:
            yield f"bad stop: worker {stop.pid} ended with {stop.code}"


class _Consumed:
    """Messages of the stream as one consumer handled them."""

    def __init__(self, consumer: str, ledgers: Ledgers, report: Report) -> None:
        self.consumer = consumer
        self.ledgers = ledgers
        self.faults = ledgers.faults
        self.report = report
        self.starts: dict[int, list[Step]] = defaultdict(list)
        self.ends: dict[tuple[int, int, int], Step] = {}
        self.done: dict[int, Step] = {}
        for step in sorted(ledgers.handled, key=lambda step: step.at):
            if step.consumer == consumer:
                self._take(step)
        self.youngest: list[tuple[float, float]] = []
        self.moments = sorted(step.at for steps in self.starts.values() for step in steps)
        self.originals = {each.seq: each for each in ledgers.stream}
        self.dead = [each for each in ledgers.dead if _header(each, "Dlq-Consumer") == consumer]
        self.stored = {each.id: each.at for each in ledgers.published if each.event == "STORED"}
        self.dead_sequences = {int(_header(each, "Dlq-Sequence")) for each in self.dead}

    def _take(self, step: Step) -> None:
        if step.event == "START":
            self.starts[step.seq].append(step)
            return
        self.ends[step.seq, step.delivery, step.pid] = step
        if step.event == "DONE":
            self.done.setdefault(step.seq, step)

    def violations(self) -> list[str]:
        found = [
            *self._lost(),
            *self._ghosts(),
            *self._repeated(),
            *self._dead_letters(),
            *self._ended_unseen(),
            *self._slow(),
            *self._effects(),
        ]
        starts = sum(map(len, self.starts.values()))
        self.report.counts.update(starts=starts, done=len(self.done), dead=len(self.dead))
        return [f"{self.consumer}: {each}" for each in found]

    def _lost(self) -> Iterator[str]:
        if lag := self.ledgers.lag[self.consumer]:
            yield f"{lag} messages are not settled"
        for seq in self.originals:
            if seq not in self.done and seq not in self.dead_sequences:
                yield f"lost: sequence {seq} was neither handled nor is it a dead letter"

    def _ghosts(self) -> Iterator[str]:
        tried = {each.id for each in self.ledgers.published}
        for step in self.ledgers.handled:
            if step.id not in tried:
                yield f"ghost: {step.id} was handled and never published"

    def _repeated(self) -> Iterator[str]:
        for seq, starts in self.starts.items():
            for before, start in pairwise(starts):
                if not self._explained(before, start):
                    how = self._end_of(before)
                    yield (
                        f"unexplained redelivery: {start.id} (sequence {seq}) started as delivery "
                        f"{start.delivery} in {start.pid} at {start.at:.2f}; delivery "
                        f"{before.delivery} started in {before.pid} at {before.at:.2f} and {how}"
                    )

    def _explained(self, before: Step, start: Step) -> bool:
        end = self.ends.get((before.seq, before.delivery, before.pid))
        if end is not None and end.event == "FAIL" and start.delivery > before.delivery:
            self.report.counts["redelivered: retry"] += 1
            return True
        fault = self._cause(before, start.at)
        if fault is None:
            return False
        if start.delivery < before.delivery and not fault.forgets:
            return False
        self.report.counts[f"redelivered: {fault.kind}"] += 1
        return True

    def _cause(self, step: Step, until: float) -> Fault | None:
        """The fault that may have cost the settlement of a delivery, or its lease."""
        end = self.ends.get((step.seq, step.delivery, step.pid))
        is_done = end is not None and end.event == "DONE"
        last = end.at + ACK_FLIGHT if end is not None and is_done else until
        for fault in self.faults:
            met_it = fault.pid in (None, step.pid) and (fault.loses_acks or not is_done)
            # What it had delivered before may wait in a worker for as long as its lease lasts.
            waits = self.ledgers.policy.ack_wait if fault.forgets else 0.0
            may_start = fault.healed + waits + ACK_FLIGHT
            if met_it and fault.began <= min(last, until) and step.at <= may_start:
                return fault
        return None

    def _end_of(self, step: Step) -> str:
        end = self.ends.get((step.seq, step.delivery, step.pid))
        return f"was {end.event} at {end.at:.2f}" if end else "did not end"

    def _dead_letters(self) -> Iterator[str]:
        places = Counter(int(_header(each, "Dlq-Sequence")) for each in self.dead)
        for seq, count in places.items():
            if count > 1:
                yield f"{count} dead letters of sequence {seq}"
            if seq in self.done and self._cause(self.done[seq], float("inf")) is None:
                yield f"sequence {seq} was handled and is a dead letter too"
        for letter in self.dead:
            yield from self._letter(letter)

    def _letter(self, letter: Stored) -> Iterator[str]:
        seq = int(_header(letter, "Dlq-Sequence"))
        original = self.originals.get(seq)
        if original is None:
            yield f"ghost: a dead letter of sequence {seq}, which is not in the stream"
            return
        if letter.payload != original.payload:
            yield f"the dead letter of sequence {seq} has another payload"
        if _kept_headers(letter) != _headers_to_keep(original):
            yield f"the dead letter of sequence {seq} has other headers: {letter.headers}"
        if _header(letter, "Dlq-Subject") != original.subject:
            yield f"the dead letter of sequence {seq} has another subject"
        fails = [end for end in self.ends.values() if end.seq == seq and end.event == "FAIL"]
        is_exhausted = _header(letter, "Dlq-Reason") == "attempts exhausted"
        if is_exhausted and not any(end.delivery >= self.ledgers.policy.attempts for end in fails):
            yield f"sequence {seq} is a dead letter before its attempts were used up"

    def _ended_unseen(self) -> Iterator[str]:
        for seq in self.ledgers.ended.get(self.consumer, set()) - self.dead_sequences:
            yield f"sequence {seq} was ended without a dead letter"

    def _slow(self) -> Iterator[str]:
        """After each fault some message is handled soon, and none waits forever."""
        for fault in filter(self._is_alone, self.faults):
            waits = [
                self._wait(step, fault) for step in self.done.values() if step.at > fault.healed
            ]
            if waits and min(waits) > RECOVERY:
                yield f"after {fault.kind} it took {min(waits):.1f} s until something was handled"
        patience = self.ledgers.policy.ack_wait + self.ledgers.policy.longest_retry + RECOVERY
        healed = max((fault.healed for fault in self.faults), default=0.0)
        for seq, step in self.done.items():
            since = max(self._stored_at(step), healed)
            waited = step.at - since
            if waited > patience and not self._was_in_line(step, since, patience):
                yield f"sequence {seq} was handled only after {waited:.1f} s"

    def _was_in_line(self, step: Step, since: float, patience: float) -> bool:
        """Whether it waited behind older messages that were handled all the time.

        A machine that is busier than its workers can stand makes a backlog, which is no fault.
        """
        begun = [at for at in self.moments if since < at < step.at]
        stood_still = any(b - a > RECOVERY for a, b in pairwise([since, *begun, step.at]))
        return not stood_still and self._youngest_before(step) <= since + patience

    def _youngest_before(self, step: Step) -> float:
        """When the youngest message was stored that was handled before this step."""
        if not self.youngest:
            done = sorted(self.done.values(), key=lambda step: step.at)
            stored = accumulate(map(self._stored_at, done), max)
            self.youngest = list(zip((step.at for step in done), stored, strict=True))
        place = bisect_left(self.youngest, (step.at, 0.0))
        return self.youngest[place - 1][1] if place else 0.0

    def _is_alone(self, fault: Fault) -> bool:
        """Whether nothing else was broken while recovery was due."""
        due = fault.healed + RECOVERY
        others = (other for other in self.faults if other is not fault)
        return not any(other.began < due and other.healed > fault.healed for other in others)

    def _wait(self, step: Step, fault: Fault) -> float:
        return step.at - max(fault.healed, self._stored_at(step))

    def _stored_at(self, step: Step) -> float:
        return self.stored.get(step.id, step.at)

    def _effects(self) -> Iterator[str]:
        for step in self.done.values():
            if not self.ledgers.effects[self.consumer, step.id]:
                yield f"{step.id} was handled and left nothing in the database"
        started = Counter(step.id for steps in self.starts.values() for step in steps)
        for (consumer, order), rows in self.ledgers.effects.items():
            if consumer == self.consumer and rows > started[order]:
                yield f"{order} left {rows} rows by {started[order]} handlers"


def _header(message: Stored, name: str) -> str:
    return next((value for key, value in message.headers if key == name), "")


def _headers_to_keep(original: Stored) -> dict[str, list[str]]:
    kept = defaultdict(list)
    for name, value in original.headers:
        is_acted_on = name.lower().startswith("nats-")
        kept[f"{KEPT_PREFIX}{name}" if is_acted_on else name].append(value)
    return dict(kept)


def _kept_headers(letter: Stored) -> dict[str, list[str]]:
    kept = defaultdict(list)
    for name, value in letter.headers:
        if name not in OWN_HEADERS:
            kept[name].append(value)
    return dict(kept)
