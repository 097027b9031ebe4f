"""Workers of the older packages, as the index has them, before, beside and after one of this
package: what docs/guides/upgrading.md says, and docs/howto/roll-back.md."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

from nats_consumer import get_nats_client
from tests.command import Command
from tests.docs.support.blocks import ROOT, blocks
from tests.live.support.project import Project
from tests.servers import NatsServer
from tests.waiting import eventually

ROLL_BACK = ROOT / "docs/howto/roll-back.md"
CONSUMERS = """
from nats_consumer import {base}, operations


class OrderConsumer({base}):
    stream_name = "{stream}"
    subjects = ["{stream}.>"]
    filter_subject = "{filter}"

    async def setup(self):
        return [operations.CreateStream(name=self.stream_name, subjects=self.subjects)]

    async def handle_message(self, message):
        print("handled", message.data.decode())
"""
ROLLING_BACK = """
import asyncio, sys
import roll_back

asyncio.run(roll_back.roll_back(sys.argv[1], "default"))
"""


@dataclass(frozen=True)
class Older:
    """A worker of an older package: the base of its class, and the filter that our guides name."""

    package: str
    base: str
    filter: str = "{stream}.>"

    def __str__(self) -> str:
        return f"{self.package}-{self.base}"


PUSH = [
    Older("django-nats-consumer==1.3.0", "JetstreamPushConsumer", ">"),
    Older("oxnats==1.0.0", "JetstreamPushConsumer"),
    Older("oxnats==2.0.0", "JetstreamPushConsumer"),
]
PULL = [
    Older("oxnats==1.0.0", "JetstreamPullConsumer"),
    Older("oxnats==2.0.0", "JetstreamPullConsumer"),
]


class Shop:
    """A project that runs with either package, and its stream."""

    def __init__(self, project: Project, server: NatsServer, stream: str, older: Older) -> None:
        self._project = project
        self._server = server
        self._stream = stream
        self._older = {"PYTHONPATH": str(installed(older.package))}
        filter_subject = older.filter.format(stream=stream)
        text = CONSUMERS.format(base=older.base, stream=stream, filter=filter_subject)
        project.write("shop/consumers.py", text)
        project.write("roll_back.py", file_of_the_guide())
        project.write("rolling_back.py", ROLLING_BACK)

    def start_older(self) -> Command:
        """Start the worker of the older package, which comes before the installed one."""
        command = ["manage.py", "nats_consumer", "OrderConsumer", "--setup"]
        return self._project.run(*command, **self._older)

    def start_ours(self) -> Command:
        """Start our worker, and wait until it consumes."""
        worker = self._project.consume("OrderConsumer")
        worker.wait_for(": OrderConsumer: consuming ")
        return worker

    def publish(self, *payloads: int) -> None:
        """Store messages of these payloads."""
        asyncio.run(publish(f"{self._stream}.created", payloads))

    def roll_back(self) -> None:
        """Run what the guide says."""
        command = self._project.run("rolling_back.py", self._stream)
        assert command.finish() == 0, command.output

    def everything_is_acknowledged(self, last: int) -> None:
        """Wait until the server has an acknowledgement for each message up to `last`."""

        def floor() -> int:
            durable = self._server.consumer(self._stream, "default")
            return int(durable["ack_floor"]["stream_seq"])

        eventually(lambda: floor() == last, explain=lambda: f"the floor is {floor()}")


@pytest.fixture(params=[*PUSH, *PULL], ids=str)
def older(request: pytest.FixtureRequest) -> Older:
    """Return the package that the shop ran until now."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def shop(
    make_project: Callable[..., Project],
    nats_server: NatsServer,
    fresh: Callable[[str], str],
    older: Older,
) -> Shop:
    return Shop(make_project(), nats_server, fresh("orders"), older)


async def publish(subject: str, payloads: Sequence[int]) -> None:
    """Store messages, in this order."""
    async with await get_nats_client() as client:
        for payload in payloads:
            await client.jetstream().publish(subject, str(payload).encode())


def installed(package: str) -> Path:
    """The folder that the package is in, alone; skips the test where pip cannot get it."""
    folder = ROOT / "target/older" / package
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not folder.exists():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            command = [*pip, "--target", str(folder), package]
            tried = subprocess.run(command, capture_output=True, text=True, check=False)
            if tried.returncode:
                pytest.skip(f"{package} cannot be installed here: {tried.stderr.strip()[-200:]}")
    return folder


def file_of_the_guide() -> str:
    """The guide's roll_back.py."""
    python = [block for block in blocks(ROLL_BACK) if block.language == "python"]
    [text] = [text for block in python for name, text in block.parts() if name == "roll_back.py"]
    return text.lstrip()


def handled(worker: Command) -> list[int]:
    """The payloads that the worker's handler got."""
    return [int(line.rpartition(" ")[2]) for line in worker.lines_with("handled ")]


def have_handled(expected: dict[Command, list[int]]) -> None:
    """Wait until each worker printed that its handler got these payloads, and no others."""

    def found() -> list[list[int]]:
        return [handled(worker) for worker in expected]

    eventually(lambda: found() == list(expected.values()), explain=lambda: str(found()))


def stop_older(worker: Command) -> None:
    """End a worker of an older package: it knows no graceful end."""
    worker.interrupt()
    worker.finish()


def test_an_upgrade_and_the_way_back_lose_and_repeat_nothing(shop: Shop) -> None:
    before = shop.start_older()
    before.wait_for("Created consumer [default]")
    shop.publish(1, 2, 3)
    shop.everything_is_acknowledged(3)
    stop_older(before)
    shop.publish(4, 5)
    ours = shop.start_ours()
    shop.publish(6)
    shop.everything_is_acknowledged(6)
    ours.interrupt()
    assert ours.finish() == 0
    shop.roll_back()
    shop.publish(7)
    after = shop.start_older()
    after.wait_for("handled 7")
    have_handled({before: [1, 2, 3], ours: [4, 5, 6], after: [7]})


@pytest.mark.parametrize("older", PUSH, ids=str, indirect=True)
def test_both_handle_a_push_message_while_an_older_worker_runs_and_ours_says_so(shop: Shop) -> None:
    before = shop.start_older()
    before.wait_for("Created consumer [default]")
    shop.publish(1)
    shop.everything_is_acknowledged(1)
    ours = shop.start_ours()
    ours.wait_for("An older worker still receives the messages of this durable")
    shop.publish(2)
    ours.wait_for("handled 2")
    before.wait_for("handled 2")
    stop_older(before)
    shop.publish(3)
    shop.everything_is_acknowledged(3)
    have_handled({before: [1, 2], ours: [2, 3]})


@pytest.mark.parametrize("older", PUSH, ids=str, indirect=True)
def test_an_older_push_worker_that_starts_beside_ours_gets_nothing(shop: Shop) -> None:
    stop_older_after_its_start(shop)
    ours = shop.start_ours()
    late = shop.start_older()
    late.wait_for("cannot create a subscription for a consumer with a deliver group")
    shop.publish(1, 2)
    shop.everything_is_acknowledged(2)
    have_handled({ours: [1, 2], late: []})


@pytest.mark.parametrize("older", PULL, ids=str, indirect=True)
@pytest.mark.parametrize("ours_is_first", [False, True])
def test_an_older_pull_worker_and_ours_share_the_messages(shop: Shop, ours_is_first: bool) -> None:
    stop_older_after_its_start(shop)
    starts = [shop.start_older, shop.start_ours]
    workers = [start() for start in (starts[::-1] if ours_is_first else starts)]
    everything = list(range(1, 21))
    shop.publish(*everything)
    shop.everything_is_acknowledged(20)
    one, other = workers
    eventually(
        lambda: sorted(handled(one) + handled(other)) == everything,
        explain=lambda: f"{handled(one)} and {handled(other)}",
    )


def stop_older_after_its_start(shop: Shop) -> None:
    """Leave the stream and the durable of an older worker behind."""
    worker = shop.start_older()
    worker.wait_for("Created consumer [default]")
    stop_older(worker)
