"""Handlers that hold up everything, or end their process."""

import json
from functools import partial

import pytest

from tests.faults.support.stage import STREAM, Stage, Worker
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(150)
SHORT = [
    pytest.param(7, consumer, harm, marks=pytest.mark.faults_smoke)
    for consumer, harm in [("Pulled", "spin"), ("PushedInThreads", "hold the GIL")]
]
LONG = [
    (60, consumer, harm)
    for consumer in ("PulledInThreads", "Pushed")
    for harm in ("hold the GIL", "spin")
]


@pytest.mark.parametrize(("holds", "consumer", "harm"), [*SHORT, *LONG])
def test_a_handler_that_holds_up_the_interpreter_runs_once(
    stage: Stage, holds: int, consumer: str, harm: str
) -> None:
    """In C code that keeps the GIL, or in a loop that does nothing but compute; three times as long
    as `ack_wait` at least."""
    stage.attributes |= {"ack_wait": 2.0, "concurrency": 4}
    worker = stage.work(consumer).is_ready()
    mix = [[1, {"do": harm, "holds": holds}]]
    assert stage.produce(1, mix=mix, name="long").finish() == 0
    stage.reaches("START", 1)
    other = stage.work(consumer).is_ready()
    assert stage.produce(200, rate=100, mix=[[1, {}]]).finish() == 0
    stage.settled(consumer, timeout=holds + 60)
    [*starts] = [step for step in stage.handled("START") if step.id == "long-0"]
    assert len(starts) == 1
    for each in (worker, other):
        stage.stop(each)
    report = stage.check(consumer)
    assert report.counts["starts"] == 201


@pytest.mark.faults_smoke
def test_a_late_handler_that_holds_the_gil_is_tried_elsewhere_meanwhile(stage: Stage) -> None:
    stage.attributes |= {"ack_wait": 30.0, "handler_timeout": 1.0, "max_retries": 1}
    for _ in range(2):
        stage.work("PulledInThreads", concurrency=1, batch_size=1).is_ready()
    mix = [[1, {"do": "hold the GIL", "holds": 8}]]
    assert stage.produce(1, mix=mix, name="long").finish() == 0
    stage.reaches("START", 2)
    assert not stage.handled("DONE")
    first, second = stage.handled("START")
    assert first.pid != second.pid
    stage.settled("PulledInThreads")
    [letter] = stage.witness.messages(f"{STREAM}-dlq")
    assert "timed out after 1 s" in dict(letter.headers)["Dlq-Error"]


@pytest.mark.faults_smoke
@pytest.mark.parametrize("harm", ["exit", "segfault", "kill"])
def test_a_message_that_ends_its_worker_ends_as_a_dead_letter(stage: Stage, harm: str) -> None:
    stage.attributes |= {"ack_wait": 1.0, "max_retries": 1}
    bad(stage, harm)
    worker = survivor(stage, "PulledInThreads")
    produced(stage, 20)
    stage.settled("PulledInThreads")
    stage.stop(worker)
    [letter] = stage.witness.messages(f"{STREAM}-dlq")
    assert dict(letter.headers)["Dlq-Reason"] == "worker lost"
    assert json.loads(letter.payload)["id"] == "bad-0"
    starts = [step for step in stage.handled("START") if step.id == "bad-0"]
    assert len(starts) == 3, "two attempts, and one alone (decision 14)"
    stage.check("PulledInThreads")


@pytest.mark.faults_smoke
def test_a_message_that_ends_its_worker_does_not_take_its_neighbours_along(stage: Stage) -> None:
    stage.attributes |= {"ack_wait": 1.0, "max_retries": 1}
    bad(stage, "exit")
    produced(stage, 20)
    survivor(stage, "PulledInThreads")
    stage.settled("PulledInThreads")
    assert len(stage.witness.messages(f"{STREAM}-dlq")) == 1


@pytest.mark.usefixtures("event_loop")
@pytest.mark.parametrize(
    ("consumer", "harm"),
    [
        ("Pulled", "use up the memory"),
        ("PushedInThreads", "use up the memory"),
        pytest.param("PushedInThreads", "leave", marks=pytest.mark.faults_smoke),
        pytest.param("Pulled", "leave in a task", marks=pytest.mark.faults_smoke),
    ],
)
def test_a_handler_that_runs_out_of_memory_or_calls_exit_costs_its_own_message_alone(
    stage: Stage, consumer: str, harm: str
) -> None:
    stage.attributes["concurrency"] = 4
    worker = stage.work(consumer).is_ready()
    assert stage.produce(300, mix=[[20, {}], [1, {"do": harm}]]).finish() == 0
    stage.settled(consumer)
    stage.stop(worker)
    report = stage.check(consumer)
    error = "MemoryError" if harm == "use up the memory" else "SystemExit"
    letters = stage.witness.messages(f"{STREAM}-dlq")
    assert all(error in dict(each.headers)["Dlq-Error"] for each in letters)
    assert report.counts["dead"] == len(letters) > 0


def bad(stage: Stage, harm: str) -> None:
    assert stage.produce(1, mix=[[1, {"do": harm}]], name="bad").finish() == 0


def produced(stage: Stage, count: int) -> None:
    assert stage.produce(count, name="good").finish() == 0


def survivor(stage: Stage, consumer: str) -> Worker:
    """Workers are started one after the other, as a process manager does, until one lives."""
    for _ in range(8):
        worker = stage.work(consumer)
        with stage.fault("worker lost", worker.pid):
            eventually(partial(_has_ended_or_gave_up, stage, worker), 30, stage.story)
        if not worker.command.has_ended:
            return worker
    raise AssertionError(f"no worker survives\n{stage.story()}")


def _has_ended_or_gave_up(stage: Stage, worker: Worker) -> bool:
    return worker.command.has_ended or bool(stage.witness.messages(f"{STREAM}-dlq"))
