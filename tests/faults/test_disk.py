"""The disk of the server is full: what was confirmed stays, and it goes on when there is room."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.support.ledgers import tries
from tests.faults.support.nodes import Node
from tests.faults.support.stage import Stage
from tests.waiting import eventually

CONSUMERS = ("Pulled", "Pushed")
MEGABYTES = 24
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here: that needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def node(disk: Path) -> Iterator[Node]:
    """A server that believes that it has more room than there is."""
    node = Node.configured(disk / "node", "jetstream { max_file_store: 1GB }\n")
    node.start()
    yield node
    if node.is_running:
        node.kill()


def test_a_full_disk_of_the_server_costs_nothing_that_was_confirmed(
    stage: Stage, node: Node, disk: Path
) -> None:
    stage.attributes["concurrency"] = 5
    worker = stage.work(*CONSUMERS).is_ready()
    producer = stage.produce(1500, rate=150, mix=[[1, {"padding": "x" * 4000}]])
    stage.goes_on()
    ballast = disk / "ballast"
    with stage.fault("disk full"):
        fill(ballast)
        eventually(lambda: not stores(stage), 30, stage.story)
        ballast.unlink(missing_ok=True)
        # A server that ran out of space turns JetStream off until it is started again.
        node.restart()
    stage.goes_on()
    assert producer.finish(timeout=60) == 0, producer.output
    stage.settled(*CONSUMERS)
    stage.stop(worker)
    stage.check(*CONSUMERS)


def fill(path: Path) -> None:
    # The server may have filled it itself, so that not even a file can be made.
    with suppress(OSError), path.open("wb") as file:
        while True:
            file.write(bytes(65536))
            file.flush()


def stores(stage: Stage) -> bool:
    """Whether the latest try was not refused."""
    return tries(stage.folder)[-1].event != "UNKNOWN"
