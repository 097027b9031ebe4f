"""Probes over HTTP: they tell the truth, also while handlers or the server stand still."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.support.probes import Probes, consuming, listening
from tests.live.support.project import Project
from tests.servers import NatsServer
from tests.waiting import eventually

CONSUMERS = """
import ctypes, logging, time
from pathlib import Path
from nats_consumer import JetstreamPullConsumer, JetstreamPushConsumer, operations

logger = logging.getLogger("shop")


class Orders({base}):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"

    def setup(self):
        while Path("wait").exists():
            time.sleep(0.01)
        return operations.CreateStream(name={stream!r}, subjects=["{stream}.>"])

    async def handle_message(self, message):
        match message.data.split():
            case [b"sleep", seconds]:
                time.sleep(float(seconds))
            case [b"hold", seconds]:
                # Without giving the GIL away, as a call of ctypes.CDLL would.
                ctypes.PyDLL(None).sleep(int(seconds))
        logger.info("handled %s", message.data.decode())
"""
PUBLISH = """
import sys
import django
django.setup()
from nats_consumer import publish
for payload in sys.argv[2:]:
    publish(sys.argv[1], payload.encode())
"""
DELETE = """
import asyncio, sys
import django
django.setup()
from nats_consumer import get_nats_client
async def main():
    async with await get_nats_client() as client:
        await client.jetstream().delete_stream(sys.argv[1])
asyncio.run(main())
"""
CREATE = """
import asyncio, sys
import django
django.setup()
from nats_consumer import get_nats_client
async def main():
    async with await get_nats_client() as client:
        await client.jetstream().add_stream(name=sys.argv[1], subjects=[sys.argv[1] + ".>"])
asyncio.run(main())
"""
HTTP = ("--setup", "--http", "127.0.0.1:0")


@pytest.fixture
def stream(fresh: Callable[[str], str]) -> str:
    return fresh("orders")


@pytest.fixture
def make_shop(make_project: Callable[..., Project], stream: str) -> Callable[..., Project]:
    def make(base: str = "JetstreamPullConsumer", **server: str) -> Project:
        return make_project(CONSUMERS.format(stream=stream, base=base), **server)

    return make


def run(project: Project, program: str, *arguments: str) -> None:
    project.write("program.py", program)
    command = project.run("program.py", *arguments)
    assert command.finish() == 0, command.output


def test_a_worker_is_ready_when_it_consumes_and_not_before(
    make_shop: Callable[..., Project],
) -> None:
    project = make_shop()
    project.write("wait", "")
    worker = project.consume(*HTTP)
    probes = Probes(worker)
    first = probes.get("/readyz")
    assert (first.status, first.text.split(" (")[0]) == (503, "[-] Orders starting")
    assert probes.get("/livez")[:2] == (200, "live\n")
    assert probes.samples().value("ready", consumer="Orders") == 0
    (project.folder / "wait").unlink()
    worker.wait_for("Orders: consuming")
    ready = eventually(lambda: (answer := probes.get("/readyz")).status == 200 and answer)
    assert ready.text.startswith("[+] Orders consuming (")
    assert probes.samples().value("state", state="consuming") == 1
    worker.interrupt()
    worker.wait_for("Draining")
    assert worker.finish() == 0


def test_without_the_option_nothing_listens(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    worker = project.consume("--setup")
    worker.wait_for("Orders: consuming")
    assert listening(worker.pid) == set()


def test_a_worker_that_drains_is_live_and_not_ready(
    make_shop: Callable[..., Project], stream: str
) -> None:
    project = make_shop()
    worker, probes = consuming(project, "--setup")
    run(project, PUBLISH, f"{stream}.created", "sleep 4")
    eventually(lambda: probes.samples().value("in_flight", state="running") == 1)
    worker.interrupt()
    eventually(lambda: not probes.is_ready(), 2)
    assert probes.get("/readyz").text.startswith("[-] Orders draining")
    assert probes.get("/livez").status == 200
    assert worker.finish() == 0
    worker.wait_for("handled sleep 4")


def answers(probes: Probes) -> None:
    """It answers within half a second."""
    for path in ("/livez", "/metrics"):
        began = time.monotonic()
        assert probes.get(path).status == 200
        assert time.monotonic() - began < 0.5, path


@pytest.mark.timeout(90)
def test_probes_answer_while_c_code_holds_the_gil(
    make_shop: Callable[..., Project], stream: str
) -> None:
    project = make_shop()
    worker, probes = consuming(project, "--setup")
    assert probes.samples().value("gil_stall_seconds") == 0
    run(project, PUBLISH, f"{stream}.created", "hold 20")
    stalls: list[float] = []
    while "handled hold" not in worker.output:
        answers(probes)
        stalls.append(probes.samples().value("gil_stall_seconds") or 0)
        time.sleep(0.1)
    assert max(stalls) > 15
    eventually(lambda: probes.samples().value("gil_stall_seconds") == 0)
    assert (probes.samples().value("gil_wait_seconds_sum") or 0) > 15
    assert probes.samples().value("settled_total", outcome="ack") == 1
    assert len(worker.lines_with("handled hold 20")) == 1


def test_a_handler_that_blocks_the_loop_is_no_stall_of_the_gil(
    make_shop: Callable[..., Project], stream: str
) -> None:
    project = make_shop()
    worker, probes = consuming(project, "--setup")
    run(project, PUBLISH, f"{stream}.created", "sleep 5")
    loop: list[float] = []
    gil: list[float] = []
    while "handled sleep" not in worker.output:
        samples = probes.samples()
        loop.append(samples.value("event_loop_stall_seconds") or 0)
        gil.append(samples.value("gil_stall_seconds") or 0)
        time.sleep(0.05)
    assert max(loop) > 4
    assert max(gil) < 1
    eventually(lambda: probes.samples().value("event_loop_stall_seconds") == 0)


@pytest.mark.parametrize("base", ["JetstreamPullConsumer", "JetstreamPushConsumer"])
def test_a_worker_whose_stream_is_deleted_is_not_ready_until_it_is_made_again(
    make_shop: Callable[..., Project], stream: str, base: str
) -> None:
    project = make_shop(base)
    _, probes = consuming(project, "--setup")
    run(project, DELETE, stream)
    eventually(lambda: not probes.is_ready(), 12)
    assert "Orders no stream: the stream does not exist" in probes.get("/readyz").text
    assert probes.get("/livez").status == 200
    run(project, CREATE, stream)
    eventually(probes.is_ready, 15)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("base", ["JetstreamPullConsumer", "JetstreamPushConsumer"])
def test_a_worker_whose_server_is_frozen_is_not_ready_until_it_goes_on(
    make_shop: Callable[..., Project], own_server: NatsServer, base: str
) -> None:
    project = make_shop(base, url=own_server.url)
    _, probes = consuming(project, "--setup")
    with own_server.paused():
        eventually(lambda: not probes.is_ready(), 20)
        assert "Orders unreachable" in probes.get("/readyz").text
    eventually(probes.is_ready, 15)


@pytest.mark.timeout(180)
def test_a_worker_without_a_server_stays_live(
    make_shop: Callable[..., Project], own_server: NatsServer
) -> None:
    project = make_shop(url=own_server.url)
    worker, probes = consuming(project, "--setup")
    own_server.kill()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert probes.get("/livez").status == 200
        assert not worker.has_ended
        time.sleep(0.2)
    assert not probes.is_ready()
    own_server.start()
    eventually(probes.is_ready, 15)


def test_a_port_that_is_taken_stops_nobody_and_is_used_when_it_is_free(
    make_shop: Callable[..., Project], stream: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        project = make_shop()
        worker = project.consume("--setup", "--http", f":{port}")
        told = worker.wait_for(f"cannot be served at 127.0.0.1:{port}")
        assert told.startswith("ERROR nats_consumer.worker: ")
        worker.wait_for("Orders: consuming")
        run(project, PUBLISH, f"{stream}.created", "one")
        worker.wait_for("handled one")
    worker.wait_for("Probes and metrics are served at", 10)
    probes = Probes(worker)
    assert probes.url.endswith(f":{port}")
    assert probes.is_ready()
    assert len(worker.lines_with("cannot be served")) == 1


def test_nothing_can_be_changed_and_nothing_else_is_there(
    make_shop: Callable[..., Project],
) -> None:
    worker = make_shop().consume(*HTTP)
    probes = Probes(worker)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert probes.get("/metrics", method=method).status == 405
    for path in ("/", "/admin", "/metrics/", "/readyz/Orders"):
        assert probes.get(path).status == 404
    assert probes.get("/livez", method="HEAD")[:2] == (200, "")
    assert probes.get("/readyz?consumer=Nobody").status == 404
    assert probes.get("/readyz?consumer=Orders").text.count("Orders") == 1


def test_clients_that_ask_badly_do_not_keep_others_from_the_answer(
    make_shop: Callable[..., Project],
) -> None:
    worker = make_shop().consume(*HTTP)
    probes = Probes(worker)
    address = ("127.0.0.1", int(probes.url.rpartition(":")[2]))
    idle = [socket.create_connection(address) for _ in range(40)]
    try:
        for each in idle[:20]:
            each.sendall(b"GET /metrics HTTP/1.1\r\n")
        idle[20].sendall(b"GET /" + b"a" * 20_000)
        idle[21].sendall(b"\0\1\2 nonsense\r\n\r\n")
        eventually(lambda: probes.get("/livez").status == 200, 15)
    finally:
        for each in idle:
            each.close()


def test_a_handlers_child_does_not_keep_the_port(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    worker = project.consume(*HTTP)
    probes = Probes(worker)
    port = int(probes.url.rpartition(":")[2])
    assert listening(worker.pid) == {port}
    files = Path(f"/proc/{worker.pid}/fdinfo").iterdir()
    flags = {
        int(file.read_text().split("flags:")[1].split()[0], 8)
        for file in files
        if (Path(f"/proc/{worker.pid}/fd") / file.name).readlink().name.startswith("socket:")
    }
    assert all(each & 0o2000000 for each in flags), "each socket is closed in a program it starts"
