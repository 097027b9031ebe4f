"""Worker processes are killed, and their messages are handled by others."""

import random

import pytest

from tests.faults.support.ledgers import Handled
from tests.faults.support.stage import Stage

# Most orders are quick, some fail once or for good, some take a while.
MIX = [
    [90, {"seconds": 0.005}],
    [4, {"do": "fail", "attempts": 1}],
    [1, {"do": "fail", "attempts": 9}],
    [5, {"seconds": 0.3}],
]


@pytest.mark.faults_smoke
@pytest.mark.usefixtures("event_loop")
@pytest.mark.parametrize("consumer", ["Pulled", "PushedInThreads"])
def test_a_worker_killed_at_any_moment_costs_nothing(stage: Stage, consumer: str) -> None:
    dice = random.Random(stage.seed)
    stage.attributes["concurrency"] = 10
    workers = [stage.work(consumer).is_ready(), stage.work(consumer).is_ready()]
    producer = stage.produce(1200, mix=MIX)
    stage.goes_on()
    for _ in range(3):
        victim = workers.pop(0)
        seen = len(stage.handled("START"))
        moment = seen + dice.randrange(5, 100)
        stage.reaches("START", moment)
        stage.kill(victim)
        workers.append(stage.work(consumer))
    assert producer.finish() == 0, producer.output
    stage.settled(consumer)
    for worker in workers:
        stage.stop(worker.is_ready())
    stage.check(consumer)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("consumer", ["Pulled", "PushedInThreads"])
def test_an_ordered_consumer_keeps_the_order_while_its_workers_are_killed(
    stage: Stage, consumer: str
) -> None:
    stage.attributes["ordered"] = True
    workers = [stage.work(consumer).is_ready() for _ in range(3)]
    producer = stage.produce(400, mix=MIX)
    for seen in (50, 150, 250):
        stage.reaches("START", seen)
        last = stage.handled("START")[-1]
        stage.kill(next(worker for worker in workers if worker.pid == last.pid))
        workers = [worker for worker in workers if worker.pid != last.pid]
        workers.append(stage.work(consumer).is_ready())
    assert producer.finish() == 0, producer.output
    stage.settled(consumer)
    for worker in workers:
        stage.stop(worker)
    stage.check(consumer)
    order = [step.seq for step in Handled(stage.folder).steps()]
    assert order == sorted(order), stage.story()


@pytest.mark.timeout(90)
@pytest.mark.parametrize("consumer", ["Pulled", "PulledInThreads", "Pushed"])
def test_a_worker_frozen_for_longer_than_ack_wait_disturbs_nobody_when_it_goes_on(
    stage: Stage, consumer: str
) -> None:
    stage.attributes["concurrency"] = 10
    frozen, other = (stage.work(consumer).is_ready() for _ in range(2))
    producer = stage.produce(2500, rate=150, mix=MIX)
    stage.goes_on()
    for _ in range(2):
        with stage.frozen(frozen):
            stage.passes(stage.attributes["ack_wait"] + 2)
        stage.goes_on()
    assert producer.finish() == 0, producer.output
    stage.settled(consumer)
    for worker in (frozen, other):
        stage.stop(worker)
    stage.check(consumer)
