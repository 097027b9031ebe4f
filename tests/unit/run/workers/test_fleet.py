"""Decisions about all workers, with a clock and processes of the test's own."""

import logging
import signal
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from nats_consumer.run.workers.fleet import Fleet, Look
from nats_consumer.run.workers.limits import Limits, Reason

MIB = 1024 * 1024


@dataclass
class FakeProcess:
    """A process that does what the test says; SIGKILL ends it."""

    pid: int
    slot: int
    reason: Reason
    runs_setup: bool
    status: int | None = None
    unready: frozenset[str] = frozenset({"Orders"})
    settled: int = 0
    silence: float | None = 0.5
    memory: int = 50
    is_halted: bool = False
    heard: list[int] = field(default_factory=list)
    has_left: bool = False
    is_released: bool = False

    def ended(self) -> int | None:
        return self.status

    def look(self) -> Look:
        return Look(not self.unready, self.unready, self.settled, self.silence)

    def rss(self) -> int:
        return self.memory * MIB

    def is_stopped(self) -> bool:
        return self.is_halted

    def signal(self, number: int) -> None:
        self.heard.append(number)
        if number == signal.SIGKILL:
            self.status = -signal.SIGKILL

    def note_leaving(self) -> None:
        self.has_left = True

    def release(self) -> None:
        assert not self.is_released
        self.is_released = True

    def gets_ready(self) -> None:
        self.unready = frozenset()


class Stage:
    """A fleet, its processes, and the time."""

    def __init__(self, size: int = 2, *, setup: bool = False, **limits: Any) -> None:
        self.now = 1000.0
        self.started: list[FakeProcess] = []
        self.refusal: OSError | None = None
        self.fleet = Fleet(
            size,
            limits=Limits(**limits),
            shutdown_timeout=25,
            start=self._start,
            clock=lambda: self.now,
            random=Random(1),
            runs_setup=setup,
        )

    def _start(self, slot: int, reason: Reason, runs_setup: bool) -> FakeProcess:
        if self.refusal is not None:
            raise self.refusal
        process = FakeProcess(100 + len(self.started), slot, reason, runs_setup)
        self.started.append(process)
        return process

    def turn(self, seconds: float = 0) -> None:
        """Let time pass, in turns of a second at most, and turn at least once."""
        end = self.now + seconds
        self.fleet.turn()
        while self.now < end:
            self.now = min(self.now + 1, end)
            self.fleet.turn()

    def get_ready(self) -> None:
        """Let all workers begin."""
        self.turn()
        while not self.fleet.is_ready:
            for each in self.started:
                each.gets_ready()
            self.turn()

    def alive(self) -> list[FakeProcess]:
        return [each for each in self.started if each.status is None]


def ready(size: int = 2, **options: Any) -> Stage:
    stage = Stage(size, **options)
    stage.get_ready()
    return stage


def test_the_first_worker_begins_alone_and_sets_up() -> None:
    stage = Stage(3, setup=True)
    stage.turn(5)
    assert [each.runs_setup for each in stage.started] == [True]
    stage.started[0].gets_ready()
    stage.turn()
    assert [each.runs_setup for each in stage.started] == [True, False, False]
    assert {each.reason for each in stage.started} == {Reason.FIRST}


def test_if_the_first_worker_cannot_begin_its_status_is_that_of_the_command() -> None:
    stage = Stage(3)
    stage.turn()
    stage.started[0].status = 1
    stage.turn(60)
    assert (stage.fleet.is_over, stage.fleet.status, len(stage.started)) == (True, 1, 1)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(1, Reason.CRASH), (-9, Reason.KILLED), (0, Reason.STOPPED)],
)
def test_a_worker_that_ends_is_followed_by_another_one(status: int, reason: Reason) -> None:
    stage = ready()
    stage.started[1].status = status
    stage.turn()
    assert stage.started[1].is_released
    assert not stage.fleet.is_ready
    stage.turn(1.3)
    assert (stage.started[2].reason, stage.started[2].slot) == (reason, 1)
    stage.get_ready()


def test_a_worker_that_ends_again_and_again_is_started_more_and_more_rarely() -> None:
    stage = ready(1)
    for _ in range(6):
        stage.alive()[0].status = 1
        stage.turn(40)
        stage.get_ready()
    assert len(stage.started) == 7
    stage.alive()[0].status = 1
    began = stage.now
    while len(stage.started) == 7:
        stage.turn(1)
    assert 23 <= stage.now - began <= 37


def test_a_drain_ends_all_and_starts_none() -> None:
    stage = ready()
    stage.fleet.drain(signal.SIGTERM)
    assert all(each.heard == [signal.SIGTERM] for each in stage.started)
    for each in stage.started:
        each.status = 0
    stage.turn()
    assert (stage.fleet.is_over, stage.fleet.status) == (True, 0)
    stage.turn(60)
    assert len(stage.started) == 2


def test_a_second_signal_within_a_second_is_the_same_request() -> None:
    stage = ready()
    stage.fleet.drain(signal.SIGINT)
    stage.turn(0.5)
    stage.fleet.drain(signal.SIGINT)
    assert stage.started[0].heard == [signal.SIGTERM]


def test_a_later_signal_ends_all_at_once() -> None:
    stage = ready()
    stage.fleet.drain(signal.SIGTERM)
    stage.turn(2)
    stage.fleet.drain(signal.SIGINT)
    stage.started[0].status = 143
    stage.turn(1)
    assert stage.started[1].heard == [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL]
    stage.turn()
    assert (stage.fleet.is_over, stage.fleet.status) == (True, 130)


def test_a_drain_during_a_roll_lets_the_handlers_of_the_old_worker_finish() -> None:
    stage = ready()
    stage.fleet.replace_all()
    stage.turn()
    stage.started[2].gets_ready()
    stage.turn(6)
    stage.fleet.drain(signal.SIGTERM)
    assert all(each.heard == [signal.SIGTERM] for each in stage.started)
    stage.turn(2)
    stage.fleet.drain(signal.SIGTERM)
    assert all(each.heard == [signal.SIGTERM] * 2 for each in stage.started), "now all end at once"


def test_a_drain_lets_the_handlers_of_a_worker_that_used_too_much_memory_finish() -> None:
    stage = ready(1, max_rss=100)
    stage.turn(60)
    stage.started[0].memory = 200
    stage.turn(35)
    stage.fleet.drain(signal.SIGTERM)
    assert stage.started[0].heard == [signal.SIGTERM]


def test_a_slot_that_is_removed_lets_the_handlers_of_its_draining_worker_finish() -> None:
    stage = ready(2, max_rss=100)
    stage.turn(60)
    stage.started[1].memory = 200
    stage.turn(35)
    stage.fleet.remove()
    assert stage.started[1].heard == [signal.SIGTERM]
    stage.started[1].status = 0
    stage.turn(60)
    assert stage.alive() == [stage.started[0]]


def test_a_worker_that_leaves_has_its_own_deadline_during_a_drain_too() -> None:
    stage = ready(1)
    stage.fleet.replace_all()
    stage.turn()
    stage.started[1].gets_ready()
    stage.turn(20)
    stage.fleet.drain(signal.SIGTERM)
    stage.turn(15)
    assert [each.heard[-1] for each in stage.started] == [signal.SIGKILL, signal.SIGTERM]


def test_the_end_of_a_worker_that_was_cut_off_while_it_drained_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = ready()
    stage.fleet.replace_all()
    stage.turn()
    stage.started[2].gets_ready()
    stage.turn()
    stage.started[0].status = -9
    stage.turn()
    assert "The worker 100 was ended by SIGKILL while it drained." in caplog.text
    stage.fleet.drain(signal.SIGTERM)
    stage.started[1].status = 143
    for each in stage.alive():
        each.status = 0
    stage.turn()
    assert "The worker 101 ended with status 143 while it drained." in caplog.text
    assert caplog.text.count("while it drained") == 2


def test_the_end_of_an_old_worker_that_is_being_replaced_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = ready(1)
    stage.fleet.replace_all()
    stage.turn()
    stage.started[0].status = -9
    stage.turn()
    assert "The worker 100 was ended by SIGKILL while it was replaced." in caplog.text


NO_PROCESS = BlockingIOError(11, "Resource temporarily unavailable")


def test_a_worker_that_the_system_cannot_start_is_tried_again_and_the_others_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = ready()
    stage.started[1].status = 1
    stage.refusal = NO_PROCESS
    stage.turn(10)
    assert "Resource temporarily unavailable. Trying again in" in caplog.text
    assert stage.started[0].heard == []
    stage.refusal = None
    stage.turn(10)
    assert (stage.started[2].slot, stage.started[2].reason) == (1, Reason.FAILED)
    stage.get_ready()


def test_a_roll_stops_where_the_system_cannot_start_a_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = ready(2, setup=True)
    stage.refusal = FileNotFoundError(2, "No such file or directory", "python")
    stage.fleet.replace_all()
    stage.turn(5)
    assert "could not be started" in caplog.text
    assert "No other worker is replaced." in caplog.text
    assert (stage.fleet.is_rolling, stage.fleet.is_ready) == (False, True)
    stage.refusal = None
    stage.fleet.replace_all()
    stage.turn()
    assert stage.started[2].runs_setup


def test_a_worker_that_used_too_much_memory_is_followed_when_the_system_has_a_process_again() -> (
    None
):
    stage = ready(1, max_rss=100)
    stage.turn(60)
    stage.started[0].memory = 200
    stage.turn(35)
    stage.refusal = NO_PROCESS
    stage.started[0].status = 0
    stage.turn(5)
    stage.refusal = None
    stage.turn(30)
    stage.get_ready()
    assert len(stage.started) == 2


def test_if_the_system_cannot_start_the_first_worker_the_command_fails() -> None:
    stage = Stage()
    stage.refusal = NO_PROCESS
    stage.turn()
    assert (stage.fleet.is_over, stage.fleet.status) == (True, 1)


def test_workers_that_do_not_end_in_time_are_killed() -> None:
    stage = ready()
    stage.fleet.drain(signal.SIGTERM)
    stage.turn(30)
    assert signal.SIGKILL not in stage.started[0].heard
    stage.turn(2)
    assert (stage.fleet.is_over, stage.fleet.status) == (True, 0)


def test_all_are_replaced_one_by_one_the_new_one_first() -> None:
    stage = ready(2, setup=True)
    old = stage.started[:]
    stage.fleet.replace_all()
    stage.turn(3)
    [fresh] = stage.started[2:]
    assert (fresh.slot, fresh.reason, fresh.runs_setup) == (0, Reason.RELOAD, True)
    assert old[0].heard == []
    fresh.gets_ready()
    stage.turn(3)
    assert (old[0].heard, old[0].has_left, len(stage.started)) == ([signal.SIGTERM], True, 3)
    old[0].status = 0
    stage.turn()
    second = stage.started[3]
    assert (second.slot, second.runs_setup) == (1, False)
    second.gets_ready()
    stage.turn()
    old[1].status = 0
    stage.turn()
    assert not stage.fleet.is_rolling
    assert stage.alive() == [fresh, second]


@pytest.mark.parametrize("fate", ["ends", "is late"])
def test_a_new_worker_that_does_not_get_ready_stops_the_replacing(
    fate: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage = ready()
    stage.fleet.replace_all()
    stage.turn()
    fresh = stage.started[2]
    if fate == "ends":
        fresh.status = 1
    stage.turn(61)
    assert not stage.fleet.is_rolling
    assert stage.fleet.is_ready
    assert [each.heard for each in stage.started[:2]] == [[], []]
    assert len(stage.started) == 3
    assert "No other worker is replaced." in caplog.text
    if fate == "is late":
        assert "Orders not ready within 60 s" in caplog.text
        assert fresh.heard == [signal.SIGTERM]


def test_a_new_worker_need_not_be_readier_than_the_old_one() -> None:
    stage = ready(1)
    stage.started[0].unready = frozenset({"Orders"})
    stage.turn(5)
    stage.fleet.replace_all()
    stage.turn()
    fresh = stage.started[1]
    fresh.look = lambda: Look(True, frozenset({"Orders"}), 0, 0.5)  # type: ignore[method-assign]
    stage.turn()
    assert stage.started[0].heard == [signal.SIGTERM]


def test_an_old_worker_that_ends_while_it_is_replaced_is_not_replaced_twice() -> None:
    stage = ready(1)
    stage.fleet.replace_all()
    stage.turn()
    stage.started[0].status = -9
    stage.turn(10)
    assert len(stage.started) == 2
    stage.started[1].gets_ready()
    stage.turn(10)
    assert (len(stage.started), stage.fleet.is_ready) == (2, True)


def test_workers_that_have_handled_enough_are_replaced_one_at_a_time() -> None:
    stage = ready(4, max_messages=500)
    for each in stage.started:
        each.settled = 500
    for number in range(4):
        stage.turn(2)
        [fresh] = stage.started[4 + number :]
        assert fresh.reason is Reason.MAX_MESSAGES
        assert len([each for each in stage.alive() if each.heard]) == 0
        fresh.gets_ready()
        stage.turn(2)
        [leaving] = [each for each in stage.alive() if each.heard]
        assert leaving.slot == fresh.slot
        leaving.status = 0
    stage.turn(2)
    assert len(stage.started) == 8


def test_a_worker_stays_if_no_other_can_follow_it_and_that_is_tried_ever_more_rarely() -> None:
    stage = ready(1, max_messages=500)
    stage.started[0].settled = 500
    for _ in range(120):
        stage.turn(1)
        for each in stage.started[1:]:
            each.status = 1
    assert 4 <= len(stage.started) <= 9
    assert stage.started[0].heard == []


def test_a_worker_that_uses_too_much_memory_ends_before_the_next_one_begins() -> None:
    stage = ready(2, max_rss=100)
    stage.turn(60)
    stage.started[0].memory = 200
    stage.turn(35)
    assert (stage.started[0].heard, len(stage.started)) == ([signal.SIGTERM], 2)
    assert stage.fleet.is_ready
    stage.started[0].status = 0
    stage.turn()
    assert (stage.started[2].slot, stage.started[2].reason) == (0, Reason.MAX_RSS)


def test_a_hung_worker_shows_what_it_does_and_is_killed() -> None:
    stage = ready()
    stage.started[0].silence = 61
    stage.turn(59)
    assert stage.started[0].heard == []
    stage.turn(2)
    assert stage.started[0].heard == [signal.SIGUSR1]
    stage.turn(1)
    assert stage.started[0].heard == [signal.SIGUSR1, signal.SIGKILL]
    stage.turn(3)
    assert stage.started[2].reason is Reason.HUNG


def test_a_stopped_worker_is_reported_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    stage = ready()
    stage.started[0].is_halted = True
    stage.started[0].silence = 600
    stage.turn(600)
    assert stage.started[0].heard == []
    assert caplog.text.count("is stopped by a signal") == 1


def test_workers_can_be_added_and_removed_but_not_the_last() -> None:
    stage = ready(1)
    stage.fleet.add()
    stage.turn()
    assert (stage.started[1].slot, stage.fleet.wanted) == (1, 2)
    stage.get_ready()
    stage.fleet.remove()
    stage.fleet.remove()
    stage.turn()
    assert [each.heard for each in stage.started] == [[], [signal.SIGTERM]]
    stage.started[1].status = 0
    stage.turn(60)
    assert (stage.fleet.wanted, len(stage.started)) == (1, 2)


def test_a_slot_that_is_removed_while_its_worker_is_replaced_leaves_nobody_behind() -> None:
    stage = ready(2, max_messages=500)
    stage.started[1].settled = 500
    stage.turn(2)
    stage.fleet.remove()
    assert [each.heard for each in stage.started[1:]] == [[signal.SIGTERM], [signal.SIGTERM]]
    for each in stage.started[1:]:
        each.status = 0
    stage.turn(5)
    assert all(each.is_released for each in stage.started[1:])


def test_a_drain_ends_the_new_worker_of_a_replacement_too() -> None:
    stage = ready(1)
    stage.fleet.replace_all()
    stage.turn()
    stage.fleet.drain(signal.SIGTERM)
    assert all(each.heard == [signal.SIGTERM] for each in stage.started)
    for each in stage.started:
        each.status = 0
    stage.turn()
    assert stage.fleet.is_over
    assert all(each.is_released for each in stage.started)


def test_turns_come_soon_only_while_something_changes() -> None:
    stage = Stage(1)
    stage.turn()
    assert stage.fleet.pause() < 0.1
    stage.get_ready()
    assert stage.fleet.pause() == 1
    stage.started[0].unready = frozenset({"Orders"})
    stage.turn()
    assert stage.fleet.pause() == 1


def test_only_workers_that_have_said_something_are_asked_what_they_do() -> None:
    stage = ready()
    stage.started[1].silence = None
    stage.turn()
    stage.fleet.show()
    stage.turn()
    stage.turn()
    assert [each.heard for each in stage.started] == [[signal.SIGUSR1], []]


def test_workers_show_what_they_do_one_after_the_other(caplog: pytest.LogCaptureFixture) -> None:
    stage = ready(3)
    caplog.set_level(logging.INFO, "nats_consumer")
    stage.fleet.show()
    shown = []
    while stage.fleet.pause() < 0.1:
        stage.turn()
        shown.append([each.pid for each in stage.started if each.heard])
    pids = [each.pid for each in stage.started]
    assert shown == [pids[:1], pids[:2], pids]
    assert caplog.messages == [f"The worker {pid} writes its stacks to stderr." for pid in pids]
