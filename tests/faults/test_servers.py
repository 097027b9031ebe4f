"""One server is killed, or frozen, under load: workers and producers go on when it is back."""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from tests.faults.support.nodes import Node
from tests.faults.support.stage import Stage

CONSUMERS = ("Pulled", "Pushed")


@contextmanager
def killed(node: Node) -> Any:
    """SIGKILL, and a start on the same store."""
    node.kill()
    yield
    node.start()


def frozen(node: Node) -> AbstractContextManager[None]:
    """SIGSTOP, and SIGCONT."""
    return node.frozen()


Harm = Callable[[Node], AbstractContextManager[None]]


def survives(stage: Stage, node: Node, harm: Harm, seconds: float) -> None:
    stage.attributes["concurrency"] = 5
    worker = stage.work(*CONSUMERS).is_ready()
    producer = stage.produce(int(200 * (seconds + 5)), rate=200)
    stage.goes_on()
    with stage.fault(f"server {harm.__name__}"), harm(node):
        stage.passes(seconds)
    stage.goes_on()
    assert producer.finish(timeout=150) == 0, producer.output
    stage.settled(*CONSUMERS)
    stage.stop(worker)
    stage.check(*CONSUMERS)


@pytest.mark.faults_smoke
@pytest.mark.usefixtures("event_loop")
@pytest.mark.parametrize("harm", [killed, frozen])
def test_an_outage_of_2_s_heals_by_itself(stage: Stage, node: Node, harm: Harm) -> None:
    survives(stage, node, harm, 2)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("harm", [killed, frozen])
def test_an_outage_of_60_s_heals_by_itself(stage: Stage, node: Node, harm: Harm) -> None:
    survives(stage, node, harm, 60)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("harm", [killed, frozen])
def test_an_outage_of_15_s_heals_by_itself(stage: Stage, node: Node, harm: Harm) -> None:
    survives(stage, node, harm, 15)
