"""Decisions about one worker: memory, heartbeats."""

from random import Random

from nats_consumer.run.workers.limits import Heartbeat, Limits, Memory

MIB = 1024 * 1024


def test_each_worker_gets_a_limit_of_messages_of_its_own() -> None:
    limits = Limits(max_messages=500, max_messages_jitter=50)
    random = Random(1)
    found = {limits.messages(random) for _ in range(100)}
    assert len(found) > 10
    assert all(500 <= (each or 0) <= 550 for each in found)
    assert Limits().messages(random) is None


def looks(memory: Memory, *sizes: int, at: float = 60) -> list[bool]:
    """The decisions for these sizes in MiB, ten seconds apart."""
    decisions = []
    for number, size in enumerate(sizes):
        now = at + 10 * number
        assert memory.is_due(now)
        assert not memory.is_due(now - 0.1)
        decisions.append(memory.exceeds(now, size * MIB))
    return decisions


def test_memory_has_to_be_above_its_limit_three_times_in_a_row() -> None:
    memory = Memory(100 * MIB, began=0)
    assert looks(memory, 90, 110, 110, 90, 110, 110, 110) == [*[False] * 6, True]


def test_memory_is_not_measured_in_the_first_minute() -> None:
    memory = Memory(100 * MIB, began=5)
    assert not memory.is_due(64.9)
    assert memory.is_due(65)


def test_a_limit_of_memory_that_the_project_needs_to_begin_with_is_ignored() -> None:
    memory = Memory(100 * MIB, began=0)
    assert looks(memory, 110) == [False]
    assert memory.is_too_low
    assert not memory.is_due(1000)


def test_a_worker_that_says_nothing_hangs() -> None:
    heartbeat = Heartbeat(60, 60, now=0)
    assert not heartbeat.look(60, None, is_stopped=False)
    assert heartbeat.look(61, None, is_stopped=False)
    assert not heartbeat.look(100, 1.0, is_stopped=False)
    assert heartbeat.look(200, 61.0, is_stopped=False)


def test_a_worker_may_take_its_time_to_load_the_project() -> None:
    heartbeat = Heartbeat(5, 60, now=0)
    assert not heartbeat.look(60, None, is_stopped=False)
    assert heartbeat.look(61, None, is_stopped=False)
    assert heartbeat.look(10, 6.0, is_stopped=False)


def test_a_stopped_worker_does_not_hang_and_gets_its_time_when_it_goes_on() -> None:
    heartbeat = Heartbeat(60, 60, now=0)
    assert not heartbeat.look(1000, 900.0, is_stopped=True)
    assert not heartbeat.look(1001, 901.0, is_stopped=False)
    assert not heartbeat.look(1061, 961.0, is_stopped=False)
    assert heartbeat.look(1062, 962.0, is_stopped=False)


def test_a_supervisor_that_stood_still_itself_blames_no_worker() -> None:
    heartbeat = Heartbeat(60, 60, now=0)
    heartbeat.excuse(1000)
    assert not heartbeat.look(1001, 1000.0, is_stopped=False)
