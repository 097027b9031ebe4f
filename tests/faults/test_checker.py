"""The checker finds what is planted, so that finding nothing means something."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.support.checker import OWN_HEADERS, check
from tests.faults.support.ledgers import Fault, Handled, Ledgers, Policy, Step, Stop, Try, read
from tests.faults.support.witness import Stored

CONSUMER = "Pulled"
DEAD = 7
RETRIED = 5
WORKER, OTHER = 100, 200


def order(seq: int) -> str:
    return f"p-{seq}"


def message(seq: int) -> Stored:
    headers = (("Nats-Msg-Id", order(seq)), ("Trace", "a"), ("Trace", "b"))
    return Stored(seq, "orders.created", headers, b'{"id": %d}' % seq)


def letter(seq: int) -> Stored:
    own = dict.fromkeys(OWN_HEADERS, "x") | {
        "Dlq-Reason": "attempts exhausted",
        "Dlq-Subject": "orders.created",
        "Dlq-Sequence": str(seq),
        "Dlq-Consumer": CONSUMER,
    }
    kept = (("Dlq-Header-Nats-Msg-Id", order(seq)), ("Trace", "a"), ("Trace", "b"))
    return Stored(1, f"dlq.orders.{CONSUMER}", (*kept, *own.items()), message(seq).payload)


def attempt(seq: int, delivery: int, end: str, at: float, pid: int = WORKER) -> list[Step]:
    def step(event: str, at: float) -> Step:
        return Step(order(seq), event, at, CONSUMER, seq, delivery, pid)

    return [step("START", at), step(end, at + 0.01)]


def sound() -> Ledgers:
    """Ten orders: one is retried once, one becomes a dead letter after two attempts."""
    handled = []
    for seq in range(1, 11):
        ends = {DEAD: ["FAIL", "FAIL"], RETRIED: ["FAIL", "DONE"]}.get(seq, ["DONE"])
        for delivery, end in enumerate(ends, 1):
            handled += attempt(seq, delivery, end, seq + delivery / 10)
    return Ledgers(
        policy=Policy(ack_wait=2, attempts=2, longest_retry=1),
        published=[
            Try(order(seq), event, float(seq), seq)
            for seq in range(1, 11)
            for event in ("TRY", "STORED")
        ],
        handled=handled,
        stream=[message(seq) for seq in range(1, 11)],
        dead=[letter(DEAD)],
        ended={CONSUMER: {DEAD}},
        lag={CONSUMER: 0},
        effects=Counter((CONSUMER, order(seq)) for seq in range(1, 11) if seq != DEAD),
    )


def changed(**changes: Any) -> Ledgers:
    return replace(sound(), **changes)


def without(seq: int, event: str) -> list[Step]:
    return [step for step in sound().handled if (step.seq, step.event) != (seq, event)]


def again(seq: int, delivery: int = 2, at: float = 12.0) -> list[Step]:
    return [*sound().handled, *attempt(seq, delivery, "DONE", at)]


def with_header(*lines: tuple[str, str]) -> Stored:
    return replace(letter(DEAD), headers=tuple((dict(letter(DEAD).headers) | dict(lines)).items()))


FAR = Fault("a cut", began=1.0, healed=2.0)

PLANTED = {
    "a message that no handler finished": (
        changed(handled=[step for step in sound().handled if step.seq != 3]),
        "lost: sequence 3",
    ),
    "a worker that died after it had acknowledged": (
        changed(handled=without(3, "DONE")),
        "lost: sequence 3",
    ),
    "a message that the server still waits for": (
        changed(lag={CONSUMER: 1}),
        "1 messages are not settled",
    ),
    "a confirmed message that the stream does not have": (
        changed(stream=[each for each in sound().stream if each.seq != 3]),
        "lost by the stream: p-3",
    ),
    "a message stored twice": (
        changed(stream=[*sound().stream, replace(message(3), seq=11)]),
        "stored 2 times: p-3",
    ),
    "a message that nobody published": (
        changed(published=[each for each in sound().published if each.id != order(3)]),
        "ghost: p-3 was handled",
    ),
    "a redelivery without a cause": (changed(handled=again(3)), "unexplained redelivery: p-3"),
    "a redelivery long after a fault had passed": (
        changed(handled=again(9), faults=[FAR]),
        "unexplained redelivery: p-9",
    ),
    "a redelivery of what another worker had done, explained by a third one's death": (
        changed(handled=again(9), faults=[Fault("SIGKILL", 9, 9.2, pid=OTHER)]),
        "unexplained redelivery: p-9",
    ),
    "a handled message that a clean stop brought back": (
        changed(handled=again(9), faults=[Fault("SIGTERM", 9, 9.2, WORKER, loses_acks=False)]),
        "unexplained redelivery: p-9",
    ),
    "one delivery that ran twice": (
        changed(handled=again(RETRIED, delivery=2)),
        "unexplained redelivery: p-5",
    ),
    "a message that failed and ran again as the same delivery": (
        changed(handled=[*sound().handled, *attempt(DEAD, 2, "FAIL", 12)]),
        "unexplained redelivery: p-7",
    ),
    "an older delivery that began after a newer one, though nothing held it up": (
        changed(handled=[*sound().handled, *attempt(RETRIED, 1, "DONE", 12.0, pid=OTHER)]),
        "unexplained redelivery: p-5",
    ),
    "an older delivery that began long before its worker was held up": (
        changed(
            handled=[*sound().handled, *attempt(RETRIED, 1, "DONE", 12.0, pid=OTHER)],
            faults=[Fault("SIGSTOP", 13.0, 14.0, pid=OTHER)],
        ),
        "unexplained redelivery: p-5",
    ),
    "a message that was ended unseen": (
        changed(ended={CONSUMER: {DEAD, 3}}),
        "sequence 3 was ended without a dead letter",
    ),
    "a dead letter that is missing": (changed(dead=[]), "lost: sequence 7"),
    "a dead letter stored twice": (
        changed(dead=[letter(DEAD), replace(letter(DEAD), seq=2)]),
        "2 dead letters of sequence 7",
    ),
    "a dead letter of a message that was handled": (
        changed(handled=[*sound().handled, *attempt(DEAD, 3, "DONE", 9.0)]),
        "sequence 7 was handled and is a dead letter too",
    ),
    "a dead letter with one byte changed": (
        changed(dead=[replace(letter(DEAD), payload=b'{"id": 8}')]),
        "another payload",
    ),
    "a dead letter that lost a header": (
        changed(dead=[replace(letter(DEAD), headers=letter(DEAD).headers[1:])]),
        "other headers",
    ),
    "a dead letter that lost one of two values": (
        changed(dead=[with_header(("Trace", "a"))]),
        "other headers",
    ),
    "a dead letter with a header of nobody's": (
        changed(dead=[replace(letter(DEAD), headers=(*letter(DEAD).headers, ("Extra", "x")))]),
        "other headers",
    ),
    "a dead letter under another subject": (
        changed(dead=[with_header(("Trace", "a"), ("Dlq-Subject", "orders.paid"))]),
        "another subject",
    ),
    "a dead letter before its last attempt": (
        changed(handled=[each for each in sound().handled if (each.seq, each.delivery) != (7, 2)]),
        "before its attempts were used up",
    ),
    "a dead letter of no message": (
        changed(dead=[letter(DEAD), letter(99)]),
        "ghost: a dead letter of sequence 99",
    ),
    "a worker that took too long to stop": (
        changed(stops=[Stop(WORKER, 10, 17.5, grace=5, code=0)]),
        "slow stop: worker 100 took 7.5 s",
    ),
    "a worker that stopped with an error": (
        changed(stops=[Stop(WORKER, 10, 11, grace=5, code=1)]),
        "ended with 1",
    ),
    "nothing handled for long after a fault was healed": (
        changed(
            handled=[replace(each, at=each.at + 20) for each in sound().handled],
            faults=[Fault("a cut", 0.0, 1.0)],
        ),
        "after a cut it took 20",
    ),
    "one message that waited forever": (
        changed(handled=[*without(3, "DONE"), *attempt(3, 2, "DONE", 99)]),
        "sequence 3 was handled only after 96",
    ),
    "a handled message without its row": (
        changed(effects=sound().effects - Counter([(CONSUMER, order(3))])),
        "left nothing in the database",
    ),
    "more rows than handlers": (
        changed(effects=sound().effects + Counter([(CONSUMER, order(3))])),
        "p-3 left 2 rows by 1 handlers",
    ),
}

EXPLAINED = {
    "its acknowledgement was lost with the connection": Fault("a cut", 9.2, 9.5),
    "its worker was killed": Fault("SIGKILL", 9.105, 9.105, pid=WORKER),
    "the server was away when it was done": Fault("server killed", 8.0, 9.12),
}


def test_sound_ledgers_have_no_violations() -> None:
    report = check(sound())
    assert report.violations == []
    assert report.counts["redelivered: retry"] == 2


@pytest.mark.parametrize("plant", PLANTED)
def test_what_is_planted_is_found(plant: str) -> None:
    ledgers, sentence = PLANTED[plant]
    assert sentence in "\n".join(check(ledgers).violations)


@pytest.mark.parametrize("cause", EXPLAINED)
def test_a_redelivery_is_explained_when(cause: str) -> None:
    assert check(changed(handled=again(9), faults=[EXPLAINED[cause]])).violations == []


def in_line(took: dict[int, float]) -> Ledgers:
    """Forty orders, one a second; each was handled after its number of seconds."""
    numbers = range(1, 41)
    return changed(
        published=[Try(order(seq), "STORED", float(seq), seq) for seq in numbers],
        handled=[step for seq in numbers for step in attempt(seq, 1, "DONE", seq + took[seq])],
        stream=[message(seq) for seq in numbers],
        dead=[],
        ended={},
        effects=Counter((CONSUMER, order(seq)) for seq in numbers),
    )


def test_a_backlog_on_a_busy_machine_is_no_fault_while_it_is_handled_in_order() -> None:
    took = {seq: seq * 2.0 for seq in range(1, 41)}
    assert check(in_line(took)).violations == []


def test_a_message_that_younger_ones_passed_was_forgotten() -> None:
    took = dict.fromkeys(range(1, 41), 0.5) | {3: 30.0}
    assert check(in_line(took)).violations == [
        f"{CONSUMER}: sequence 3 was handled only after 30.0 s"
    ]


def test_a_backlog_that_nobody_works_at_is_a_fault() -> None:
    took = {seq: 1.0 if seq < 20 else 60.0 for seq in range(1, 41)}
    assert check(in_line(took)).violations != []


def test_a_handler_that_a_stop_cut_short_may_run_again() -> None:
    stop = Fault("SIGTERM", 9.105, 9.2, WORKER, loses_acks=False)
    cut_short = [*without(9, "DONE"), *attempt(9, 2, "DONE", 12)]
    assert check(changed(handled=cut_short, faults=[stop])).violations == []


def test_an_older_delivery_starts_after_a_newer_one_only_where_the_server_forgot_that_one() -> None:
    late = [*sound().handled, *attempt(RETRIED, 1, "DONE", 12.0, pid=OTHER)]
    frozen = Fault("frozen", 4.0, 11.9, forgets=False)
    (violation,) = check(changed(handled=late, faults=[frozen])).violations
    assert "started as delivery 1 in 200" in violation
    assert check(changed(handled=late, faults=[replace(frozen, forgets=True)])).violations == []


def test_a_long_report_is_cut_short() -> None:
    text = str(check(changed(handled=[])))
    assert "counts: " in text
    assert len(text.splitlines()) < 30


def test_a_line_of_a_ledger_that_is_still_being_written_is_not_read_yet(tmp_path: Path) -> None:
    (tmp_path / "handled.jsonl").write_text('{"event": "START"}\n{"event": "DO')
    assert read(tmp_path, "handled") == [{"event": "START"}]


def test_the_ledger_of_the_handlers_is_read_on_where_it_was_read_last(tmp_path: Path) -> None:
    step = {"id": "p-1", "at": 1.0, "consumer": "Pulled", "seq": 1, "delivery": 1, "pid": 7}
    start, done = (json.dumps({**step, "event": event}) for event in ("START", "DONE"))
    path, handled = tmp_path / "handled.jsonl", Handled(tmp_path)
    assert handled.steps() == []
    path.write_text(f"{start}\n{done[:20]}")
    assert [step.event for step in handled.steps()] == ["START"]
    path.write_text(f"{start}\n{done}\n")
    assert [step.event for step in handled.steps()] == ["START", "DONE"]
