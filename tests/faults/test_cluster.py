"""Three servers, every message on all of them: some are lost under load."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.command import Command
from tests.faults.support.nodes import Cluster, Node
from tests.faults.support.stage import STREAM, Stage, Worker
from tests.faults.support.witness import RefusedError, Witness
from tests.waiting import eventually

CONSUMERS = ("Pulled", "Pushed")
pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def stage(make_stage: Callable[..., Stage], cluster: Cluster) -> Stage:
    """A stage on the cluster, without a proxy."""
    stage = make_stage(Witness(cluster.urls), cluster.urls)
    stage.create(replicas=3)
    stage.attributes["concurrency"] = 5
    return stage


@contextmanager
def load(stage: Stage, count: int) -> Iterator[tuple[Worker, Command]]:
    """A worker at work; at the end everything is settled and compared."""
    worker = stage.work(*CONSUMERS).is_ready()
    producer = stage.produce(count, rate=150)
    stage.goes_on()
    yield worker, producer
    assert producer.finish(timeout=90) == 0, producer.output
    stage.settled(*CONSUMERS)
    stage.stop(worker)
    stage.check(*CONSUMERS)


def leader(stage: Stage, durable: str) -> str:
    def name() -> str | None:
        found = stage.witness.consumer(STREAM, durable)["cluster"].get("leader")
        return str(found) if found else None

    return eventually(name, 20)


def dead_letters(stage: Stage) -> dict[str, Any] | None:
    """The settings of the dead letter stream, which workers create soon after their start."""
    try:
        config: dict[str, Any] = stage.witness.stream(f"{STREAM}-dlq")["config"]
    except RefusedError:
        return None
    return config


def test_the_dead_letter_stream_has_the_storage_and_replicas_of_its_source(stage: Stage) -> None:
    worker = stage.work(*CONSUMERS).is_ready()
    kept = eventually(lambda: dead_letters(stage), 20)
    source = stage.witness.stream(STREAM)["config"]
    fields = ("storage", "num_replicas")
    assert [kept[each] for each in fields] == [source[each] for each in fields] == ["file", 3]
    stage.stop(worker)


@pytest.mark.faults_smoke
def test_the_leader_of_a_consumer_is_killed(stage: Stage, cluster: Cluster) -> None:
    with load(stage, 1500):
        victim = cluster.nodes[leader(stage, "Pulled")]
        with stage.fault("leader killed"):
            victim.kill()
            stage.goes_on()
    victim.start()


def test_the_leader_of_a_consumer_is_frozen(stage: Stage, cluster: Cluster) -> None:
    with load(stage, 3000):
        victim = cluster.nodes[leader(stage, "Pushed")]
        with stage.fault("leader frozen"), victim.frozen():
            stage.goes_on(within=40)


def test_a_lost_majority_is_waited_for(stage: Stage, cluster: Cluster) -> None:
    with load(stage, 3000) as (worker, _):
        victims = list(cluster.nodes.values())[:2]
        with stage.fault("majority killed"):
            for victim in victims:
                victim.kill()
            stage.passes(10)
            assert not worker.command.has_ended
            cluster.start()
        stage.goes_on()
    assert not stage.witness.messages(f"{STREAM}-dlq")


def test_the_servers_are_restarted_one_after_the_other(stage: Stage, cluster: Cluster) -> None:
    with load(stage, 4000):
        for name, node in cluster.nodes.items():
            with stage.fault(f"restart of {name}"):
                node.stop()
                cluster.start()
            stage.goes_on()


def test_a_server_in_lame_duck_mode_is_left(stage: Stage, cluster: Cluster) -> None:
    with load(stage, 5000):
        victim = cluster.nodes[leader(stage, "Pulled")]
        with stage.fault("lame duck"):
            victim.lame_duck()
            eventually(lambda: not victim.is_running, 60, stage.story)
            cluster.start()
        stage.goes_on()


def test_leaders_that_step_down_again_and_again_are_followed(stage: Stage) -> None:
    with load(stage, 2000), stage.fault("leaders step down"):
        for _ in range(10):
            for durable in CONSUMERS:
                leader(stage, durable)
                stage.witness.ask(f"CONSUMER.LEADER.STEPDOWN.{STREAM}.{durable}")


def truncated(stage: Stage, node: Node) -> None:
    """Its newest block of messages has lost its second half."""
    node.kill()
    blocks = (node.folder / "jetstream").glob(f"*/streams/{STREAM}/msgs/*.blk")
    newest = max(blocks, key=lambda block: int(block.stem))
    os.truncate(newest, newest.stat().st_size // 2)


def fell_back(stage: Stage, node: Node) -> None:
    """It has the store of some time ago."""
    node.kill()
    shutil.copytree(node.folder / "jetstream", node.folder / "copy")
    node.start()
    stage.goes_on()
    node.kill()
    shutil.rmtree(node.folder / "jetstream")
    (node.folder / "copy").rename(node.folder / "jetstream")


@pytest.mark.parametrize("harm", [truncated, fell_back])
def test_one_of_three_that_lost_a_part_of_its_store_gets_it_from_the_others(
    stage: Stage, cluster: Cluster, harm: Callable[[Stage, Node], None]
) -> None:
    with load(stage, 4000):
        victim = cluster.nodes[leader(stage, "Pulled")]
        with stage.fault(harm.__name__):
            harm(stage, victim)
            stage.goes_on()
            cluster.start()
        stage.goes_on()

    def has_all() -> bool:
        return all(node.stream(STREAM)["state"]["messages"] == 4000 for node in nodes)

    nodes = cluster.nodes.values()
    eventually(has_all, 30, stage.story)
