"""SIGTERM at bad moments: the worker ends in time, and what it held is with others at once."""

from collections.abc import Callable

import pytest

from tests.faults.support.checker import STOPPING
from tests.faults.support.nodes import Node
from tests.faults.support.proxy import DOWN, UP, Proxy
from tests.faults.support.stage import GRACE, STREAM, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(90)


@pytest.mark.faults_smoke
@pytest.mark.usefixtures("event_loop")
@pytest.mark.parametrize("consumer", ["Pulled", "PushedInThreads"])
def test_what_a_stopped_worker_held_is_with_another_long_before_ack_wait(
    stage: Stage, consumer: str
) -> None:
    stage.attributes |= {"ack_wait": 60.0, "concurrency": 2, "batch_size": 200}
    worker = stage.work(consumer).is_ready()
    # Quick ones first, for which the worker takes more in advance; then slow ones.
    assert stage.produce(300, rate=2000, name="quick").finish() == 0
    producer = stage.produce(300, rate=2000, mix=[[1, {"seconds": 0.25}]], name="slow")
    assert producer.finish() == 0, producer.output
    eventually(lambda: any(step.id.startswith("slow") for step in stage.handled("START")), 20)
    stage.stop(worker)
    assert len(stage.handled()) < 400
    other = stage.work(consumer, concurrency=40).is_ready()
    stage.settled(consumer, timeout=20)
    stage.stop(other)
    report = stage.check(consumer)
    assert report.counts["starts"] == 600, "nothing ran twice"


@pytest.mark.usefixtures("event_loop")
@pytest.mark.parametrize("consumer", ["Pulled", "PulledInThreads"])
def test_a_handler_that_outlasts_the_grace_is_left_and_runs_elsewhere(
    stage: Stage, consumer: str
) -> None:
    stage.attributes["ack_wait"] = 60.0
    worker = stage.work(consumer).is_ready()
    assert stage.produce(3, mix=[[1, {"seconds": 30}]]).finish() == 0
    stage.reaches("START", 3)
    stop = stage.stop(worker)
    assert GRACE <= stop.gone - stop.asked <= GRACE + STOPPING
    stage.work(consumer).is_ready()
    stage.reaches("START", 6, within=10)


@pytest.mark.parametrize("consumer", ["Pushed", "PushedInThreads"])
def test_of_200_messages_that_a_stopped_worker_holds_each_runs_once(
    stage: Stage, consumer: str
) -> None:
    stage.attributes |= {"ack_wait": 60.0, "max_ack_pending": 200}
    worker = stage.work(consumer, concurrency=2).is_ready()
    assert stage.produce(200, rate=2000, mix=[[1, {"seconds": 3}]]).finish() == 0
    eventually(lambda: stage.witness.consumer(STREAM, consumer)["num_pending"] == 0, 20)
    other = stage.work(consumer, concurrency=200).is_ready()
    stage.stop(worker)
    stage.settled(consumer, timeout=20)
    stage.stop(other)
    stage.check(consumer)
    steps = stage.handled("START")
    assert len(steps) == 200, "nothing ran twice"
    finished = {step.delivery for step in steps if step.pid == worker.pid}
    handed_back = {step.delivery for step in steps if step.pid == other.pid}
    assert (finished, handed_back) == ({1}, {2})


@pytest.mark.parametrize("consumer", ["Pulled", "PulledInThreads"])
def test_what_a_second_sigterm_cut_short_comes_again(stage: Stage, consumer: str) -> None:
    stage.attributes |= {"ack_wait": 2.0, "concurrency": 5}
    worker = stage.work(consumer).is_ready()
    assert stage.produce(40, mix=[[1, {"seconds": 1.5}]]).finish() == 0
    stage.reaches("START", 5)
    with stage.fault("two SIGTERMs", worker.pid):
        worker.command.interrupt()
        worker.command.wait_for("Draining")
        stage.passes(1.1)  # sooner it would be taken for the same request
        worker.command.interrupt()
        assert worker.command.finish() in (0, 143)
    other = stage.work(consumer, concurrency=20).is_ready()
    stage.settled(consumer)
    stage.stop(other)
    stage.check(consumer)


@pytest.mark.parametrize("consumer", ["Pulled", "PulledInThreads"])
def test_sigterm_while_dead_letters_are_stored_loses_none_and_stores_none_twice(
    stage: Stage, proxy: Proxy, consumer: str
) -> None:
    stage.attributes |= {"ack_wait": 30.0, "concurrency": 20}
    worker = stage.work(consumer).is_ready()
    # The stream of the dead letters is there, and everything else of the first time is over.
    assert stage.produce(1, mix=[[1, {"do": "give up"}]], name="first").finish() == 0
    stage.settled(consumer)
    with stage.fault("unconfirmed"), proxy.dropping(DOWN, rb'-dlq",.*"seq":') as unconfirmed:
        assert stage.produce(40, rate=2000, mix=[[1, {"do": "give up"}]]).finish() == 0
        eventually(lambda: len(stage.witness.messages(f"{STREAM}-dlq")) > 1, 20, stage.story)
        stage.stop(worker)
    assert unconfirmed
    other = stage.work(consumer).is_ready()
    stage.settled(consumer)
    stage.stop(other)
    stage.check(consumer)
    assert len(stage.witness.messages(f"{STREAM}-dlq")) == 41


Away = Callable[[Node, Proxy], object]


def down(node: Node, proxy: Proxy) -> object:
    return proxy.down()


def frozen(node: Node, proxy: Proxy) -> object:
    return node.frozen()


def silent(node: Node, proxy: Proxy) -> object:
    return proxy.blackhole(UP, DOWN)


@pytest.mark.parametrize("consumer", ["Pulled", "PushedInThreads"])
@pytest.mark.parametrize("away", [down, frozen, silent])
def test_a_worker_without_its_server_stops_in_time(
    stage: Stage, node: Node, proxy: Proxy, away: Away, consumer: str
) -> None:
    stage.attributes["concurrency"] = 5
    worker = stage.work(consumer).is_ready()
    producer = stage.produce(600, rate=200, mix=[[1, {"seconds": 0.02}]])
    stage.goes_on()
    with stage.fault(away.__name__), away(node, proxy):  # type: ignore[attr-defined]
        stage.passes(1)
        stage.stop(worker)
    other = stage.work(consumer).is_ready()
    assert producer.finish(timeout=60) == 0, producer.output
    stage.settled(consumer)
    stage.stop(other)
    stage.check(consumer)
