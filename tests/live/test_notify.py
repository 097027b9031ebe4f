"""systemd is told when a worker or its supervisor is ready, reloads, stops, and goes on."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command import Command
from tests.live.support.project import Project
from tests.live.support.stage import Stage
from tests.live.support.stopped import STOPS_THE_ENGINE
from tests.waiting import becomes_true, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

CONSUMERS = """
import os, time
from pathlib import Path
from nats_consumer import JetstreamPullConsumer


class Orders(JetstreamPullConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"

    async def handle_message(self, message):
        Path("handled").touch()
        {handler}
"""


class Manager:
    """Hears what a process tells its process manager."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)
        self._told: list[str] = []

    def told(self) -> list[str]:
        """Every line so far."""
        while True:
            try:
                self._told += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self._told

    def count(self, line: str) -> int:
        return self.told().count(line)

    def finish(self, command: Command) -> int:
        """Hear it until it has ended, and return its exit code. It waits while nobody hears."""
        eventually(lambda: self.told() and command.has_ended, 60, lambda: command.output)
        return command.finish()

    def end(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = f"@nats-consumer-{os.getpid()}-{time.monotonic_ns()}"
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else name)
    yield manager
    manager.end()


@pytest.fixture
def start(
    make_project: Callable[..., Project], stage: Stage, manager: Manager
) -> Callable[..., Command]:
    def start(*arguments: str, handler: str = "pass") -> Command:
        project = make_project(CONSUMERS.format(stream=stage.stream, handler=handler))
        return project.run(
            "manage.py",
            "nats_consumer",
            *arguments,
            NOTIFY_SOCKET=manager.address,
            WATCHDOG_USEC="600000",
        )

    return start


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["one", "workers"])
async def test_a_process_tells_when_it_is_ready_reloads_and_stops(
    start: Callable[..., Command], manager: Manager, arguments: tuple[str, ...]
) -> None:
    command = start(*arguments)
    await becomes_true(lambda: manager.count("READY=1") == 1, 60, lambda: command.output)
    command.wait_for("All 2 workers are ready" if arguments else "Orders: consuming", 5)
    command.interrupt(signal.SIGHUP)
    await becomes_true(lambda: manager.count("RELOADING=1") == 1)
    await becomes_true(lambda: manager.count("READY=1") == 2, 60, lambda: command.output)
    told = manager.told()
    [moment] = [line for line in told if line.startswith("MONOTONIC_USEC=")]
    assert told.index(moment) == told.index("RELOADING=1") + 1
    assert int(moment.partition("=")[2]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    command.interrupt()
    assert manager.finish(command) == 0, command.output
    assert manager.count("STOPPING=1") == 1
    assert manager.count("WATCHDOG=1") > 2


async def test_signs_of_life_come_while_a_handler_holds_the_gil_and_end_with_the_engine(
    start: Callable[..., Command], manager: Manager, stage: Stage
) -> None:
    hold = "__import__('ctypes').PyDLL(None).sleep(3); "
    command = start(handler=f"{hold}{STOPS_THE_ENGINE.strip()}")
    await becomes_true(lambda: manager.count("READY=1") == 1, 60, lambda: command.output)
    await stage.publish("one")
    handled = Path(command.folder) / "handled"
    await becomes_true(handled.exists)
    before = manager.count("WATCHDOG=1")
    await becomes_true(lambda: manager.count("WATCHDOG=1") >= before + 5)
    seen = [time.monotonic(), manager.count("WATCHDOG=1")]

    def is_silent() -> bool:
        count = manager.count("WATCHDOG=1")
        if count != seen[1]:
            seen[:] = [time.monotonic(), count]
        return time.monotonic() - seen[0] > 3

    await becomes_true(is_silent, 60)


async def test_without_a_manager_nothing_is_told_and_nothing_is_needed(
    make_project: Callable[..., Project], stage: Stage
) -> None:
    project = make_project(CONSUMERS.format(stream=stage.stream, handler="pass"))
    command = project.run("manage.py", "nats_consumer", NOTIFY_SOCKET="/nowhere/notify")
    command.wait_for("Orders: consuming")
    command.interrupt()
    assert command.finish() == 0, command.output
