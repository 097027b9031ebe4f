"""A supervisor holds no more after many workers and many scrapes than before."""

import http.client
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from nats_consumer import _native
from nats_consumer.run.workers.limits import Reason
from nats_consumer.run.workers.process import Processes
from tests.docs.support.blocks import ROOT
from tests.live.support.probes import Probes
from tests.live.support.project import Project
from tests.live.support.stage import Stage
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("exact_start")

MIB = 1024 * 1024


def held() -> tuple[int, int]:
    """Open files, and areas of memory that other processes share."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return len(list(Path("/proc/self/fd").iterdir())), sum("nats-consumer" in line for line in maps)


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_fifty_workers_one_after_the_other_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Django looks for the program, which a process of pytest-xdist has not.
    monkeypatch.setattr(sys, "argv", [__file__])
    processes = Processes()
    processes._arguments = [sys.executable, "-c", "pass"]

    def one() -> None:
        worker = processes.start(0, Reason.FIRST, False)
        assert eventually(lambda: worker.ended() is not None)
        worker.release()

    one()
    before, threads_before = held(), threads()
    for _ in range(50):
        one()
    assert held() == before
    # Those of other tests may end meanwhile.
    assert threads() <= threads_before


def test_a_worker_that_cannot_be_started_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", [__file__])
    processes = Processes()
    processes._arguments = ["/nowhere/python"]

    def one() -> None:
        with pytest.raises(FileNotFoundError):
            processes.start(0, Reason.FIRST, False)

    one()
    before = held()
    one()
    assert held() == before


@pytest.mark.timeout(120)
def test_ten_thousand_scrapes_take_no_more_memory() -> None:
    fleet = _native.Fleet()
    pages = [_native.Page() for _ in range(2)]
    for slot, page in enumerate(pages):
        fleet.adopt(page, slot)
    fleet.beat()
    fleet.set_slots(2, 2)
    fleet.note_start("first")
    probes = fleet.serve("127.0.0.1:0", 10.0)
    try:
        address = eventually(lambda: probes.address)
        scrape(address, 2000)
        before = resident()
        scrape(address, 10_000)
        assert resident() - before < 4 * MIB
    finally:
        probes.end()


def scrape(address: str, times: int) -> None:
    connection = http.client.HTTPConnection(address, timeout=10)
    for _ in range(times):
        connection.request("GET", "/metrics")
        assert b"nats_consumer_workers 2" in connection.getresponse().read()
    connection.close()


@pytest.mark.anyio
async def test_the_healthcheck_of_the_compose_file_passes_where_workers_consume(
    make_project: Callable[..., Project], stage: Stage
) -> None:
    project = make_project(
        f"""
        from nats_consumer import JetstreamPullConsumer

        class Orders(JetstreamPullConsumer):
            stream_name = {stage.stream!r}
            filter_subject = "{stage.stream}.>"

            async def handle_message(self, message): ...
        """
    )
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    _, python, option, code = services["consumers"]["healthcheck"]["test"]
    assert (python, option) == ("python", "-c")
    worker = project.consume("--http", "127.0.0.1:0")
    worker.wait_for("Orders: consuming")
    code = code.replace("http://127.0.0.1:9464", Probes(worker).url)
    assert eventually(lambda: project.run("-c", code).finish() == 0)
    worker.interrupt()
    assert worker.finish() == 0
    failed = project.run("-c", code)
    assert failed.finish() == 1
