"""A server comes back with less than it had: nothing, or an older state of its store."""

import shutil
from collections.abc import Callable

import pytest

from tests.faults.support.checker import check
from tests.faults.support.nodes import Node
from tests.faults.support.stage import STREAM, Stage

CONSUMERS = ("Pulled", "Pushed")
MESSAGES = f"jetstream/$G/streams/{STREAM}/msgs"
pytestmark = pytest.mark.timeout(90)


def handle(stage: Stage, name: str, count: int = 100) -> None:
    """Publish this number of orders, and wait until each consumer has handled them."""
    before = len(stage.handled())
    assert stage.produce(count, name=name).finish() == 0
    stage.reaches("DONE", before + count * len(CONSUMERS))
    stage.settled(*CONSUMERS)


def test_a_server_that_comes_back_empty_is_told_and_nothing_is_made_up(
    stage: Stage, node: Node
) -> None:
    worker = stage.work(*CONSUMERS).is_ready()
    handle(stage, "before")
    with stage.fault("store wiped"):
        node.kill()
        shutil.rmtree(node.folder / "jetstream")
        node.start()
        for consumer in CONSUMERS:
            worker.command.wait_for(f"{consumer}: The stream `{STREAM}` does not exist")
    assert not node.streams()
    stage.create()
    handle(stage, "after")
    stage.stop(worker)
    assert len(stage.handled("START")) == 2 * 100 * len(CONSUMERS)


@pytest.mark.parametrize("part", ["jetstream", MESSAGES], ids=["all of it", "not its durables"])
def test_a_store_that_fell_back_to_an_older_state_is_consumed_on(
    stage: Stage, node: Node, part: str, copy_of: Callable[[str], Callable[[], None]]
) -> None:
    """As after a power failure; a durable may then be ahead of its stream."""
    worker = stage.work(*CONSUMERS).is_ready()
    handle(stage, "before")
    restore = copy_of(part)
    with stage.fault("fell back"):
        handle(stage, "lost")
        node.stop()
        restore()
        node.start()
    handle(stage, "after")
    stage.stop(worker)
    # What the stream lost is gone, but was handled; its sequences belong to others now.
    report = check(stage.ledgers(*CONSUMERS))
    assert len(report.violations) == 100, f"{report}\n{stage.story()}"
    assert all(each.startswith("lost by the stream: lost-") for each in report.violations)
    assert report.counts["redelivered: fell back"] == 100 * len(CONSUMERS)


@pytest.fixture
def copy_of(node: Node) -> Callable[[str], Callable[[], None]]:
    """`copy_of(part)` copies a part of the store as it is now; what it returns puts it back."""

    def make(part: str) -> Callable[[], None]:
        source, copy = node.folder / part, node.folder / "copy"
        with node.frozen():
            shutil.copytree(source, copy)

        def restore() -> None:
            shutil.rmtree(source)
            shutil.copytree(copy, source)

        return restore

    return make
