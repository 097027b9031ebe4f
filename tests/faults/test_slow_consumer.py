"""A worker reads too slowly for the server, which cuts it off."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.support.nodes import Node
from tests.faults.support.stage import Stage
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A server with little patience, and little room for what a client does not read."""
    node = Node.configured(tmp_path / "node", 'write_deadline: "1s"\nmax_pending: 1MB\n')
    node.start()
    yield node
    node.kill()


def test_a_worker_that_the_server_cuts_off_as_a_slow_consumer_goes_on(
    stage: Stage, node: Node
) -> None:
    stage.urls = [node.url]  # a proxy would read on
    stage.attributes |= {"ack_wait": 20.0, "max_ack_pending": 5000}
    worker = stage.work("Pushed").is_ready()
    producer = stage.produce(2000, rate=500, mix=[[1, {"padding": "x" * 50_000}]])
    stage.goes_on()
    with stage.frozen(worker):
        eventually(lambda: node.varz()["slow_consumers"] > 0, 30, stage.story)
    stage.goes_on()
    assert producer.finish(timeout=60) == 0, producer.output
    stage.settled("Pushed")
    stage.stop(worker)
    stage.check("Pushed")
