"""manage.py nats_consumer --reload: the worker drains and restarts when Python of the project
changes."""

import os
import signal
from collections.abc import Callable

import pytest

from tests.command import Command
from tests.live.support.project import Project
from tests.live.support.stage import Stage

pytestmark = pytest.mark.anyio

CONSUMERS = """
import asyncio, logging
from nats_consumer import JetstreamPushConsumer

logger = logging.getLogger("shop")
logger.info("this is version {version}")


class Orders(JetstreamPushConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"
    concurrency = 2

    async def handle_message(self, message):
        logger.info("began %s", message.data.decode())
        await asyncio.sleep({seconds})
        logger.info("version {version} finished %s", message.data.decode())
"""


class Shop:
    """A project whose consumer says which version of it handles a message."""

    def __init__(self, make_project: Callable[..., Project], stream: str) -> None:
        self._stream = stream
        self.project = make_project(self._text(1, 0))

    def start(self) -> Command:
        command = self.project.consume("--reload")
        command.wait_for("Orders: consuming")
        return command

    def change(self, version: int, seconds: float = 0) -> None:
        self.project.write("shop/consumers.py", self._text(version, seconds))

    def _text(self, version: int, seconds: float) -> str:
        text = CONSUMERS.format(stream=self._stream, version=version, seconds=seconds)
        # Of another length: within a second Python takes a source of the same for unchanged.
        return text + "#" * version + "\n"


@pytest.fixture
def shop(make_project: Callable[..., Project], stage: Stage) -> Shop:
    return Shop(make_project, stage.stream)


async def test_a_change_restarts_it_with_the_new_code(shop: Shop, stage: Stage) -> None:
    worker = shop.start()
    await stage.publish("one")
    worker.wait_for("version 1 finished one")
    shop.change(2)
    worker.wait_for("consumers.py changed")
    worker.wait_for_lines("Orders: consuming", 2)
    await stage.publish("two")
    worker.wait_for("version 2 finished two")
    assert worker.lines_with("version 1 finished two") == []
    worker.interrupt()
    assert worker.finish() == 0


async def test_what_runs_may_finish_before_it_restarts(shop: Shop, stage: Stage) -> None:
    shop.change(1, seconds=1)
    worker = shop.start()
    await stage.publish("one")
    worker.wait_for("began one")
    shop.change(2)
    worker.wait_for("version 1 finished one")
    worker.wait_for("this is version 2")
    assert len(worker.lines_with("began one")) == 1
    lines = worker.output.splitlines()
    finished = next(i for i, line in enumerate(lines) if "version 1 finished one" in line)
    second = next(i for i, line in enumerate(lines) if "this is version 2" in line)
    assert finished < second


async def test_a_mistake_is_waited_out(shop: Shop) -> None:
    worker = shop.start()
    shop.project.write("shop/consumers.py", "def oops(:")
    worker.wait_for("SyntaxError")
    worker.wait_for("waiting for a change")
    shop.change(2)
    worker.wait_for_lines("Orders: consuming", 2)
    worker.interrupt()
    assert worker.finish() == 0


async def test_only_python_of_the_project_counts(shop: Shop) -> None:
    folders = (".nats", ".venv/lib", "env/lib/python3.11/site-packages/package", "made_with_venv")
    for folder in folders:
        (shop.project.folder / folder).mkdir(parents=True)
    shop.project.write("made_with_venv/pyvenv.cfg", "")
    worker = shop.start()
    for folder in folders:
        shop.project.write(f"{folder}/module.py", "")
    shop.project.write("db.sqlite3", "")
    shop.project.write("shop/notes.txt", "")
    shop.project.write("shop/models.py", "")
    (line,) = worker.wait_for_lines(" changed: ", 1)
    assert "shop/models.py" in line
    worker.wait_for_lines("Orders: consuming", 2)


async def test_it_runs_without_debug_and_says_what_it_is_meant_for(shop: Shop) -> None:
    worker = shop.start()
    assert worker.lines_with("WARNING nats_consumer.worker: DEBUG is False")
    worker.interrupt()
    assert worker.finish() == 0
    settings = shop.project.folder / "settings.py"
    settings.write_text(settings.read_text() + "DEBUG = True\n")
    worker = shop.start()
    assert worker.lines_with("DEBUG is False") == []


async def test_it_needs_no_activated_environment(
    shop: Shop, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    worker = shop.start()
    shop.change(2)
    worker.wait_for_lines("Orders: consuming", 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_both_processes(
    shop: Shop, stage: Stage, number: signal.Signals
) -> None:
    shop.change(1, seconds=1)
    worker = shop.start()
    await stage.publish("one")
    worker.wait_for("began one")
    worker.interrupt(number)
    assert worker.finish() == 0
    assert worker.lines_with("version 1 finished one")


async def test_without_watchfiles_it_names_the_extra(shop: Shop) -> None:
    shop.project.write("watchfiles.py", "raise ImportError('no such module')")
    command = shop.project.consume("--reload")
    assert command.finish() == 1
    assert "pip install 'django-nats-consumer[reload]'" in command.output
    assert "Traceback" not in command.output


async def test_the_consumers_do_not_outlive_the_process_that_watches(
    shop: Shop, stage: Stage
) -> None:
    worker = shop.start()
    worker.interrupt(signal.SIGKILL)
    assert worker.finish() == -signal.SIGKILL
    worker.wait_for("Drained")


EMBEDDED = """
import logging
from nats_consumer import JetstreamPushConsumer, operations

logging.getLogger("shop").info("this is version {version}")


class Orders(JetstreamPushConsumer):
    stream_name = "orders"
    filter_subject = "orders.>"

    def setup(self):
        return operations.CreateStream(name="orders", subjects=["orders.>"])

    def handle_message(self, message): ...
"""


async def test_the_embedded_server_writes_its_store_unnoticed_and_comes_again(
    make_project: Callable[..., Project],
) -> None:
    project = make_project(EMBEDDED.format(version=1), url="embedded")
    worker = project.consume("--reload", "--setup")
    worker.wait_for("Stream orders is created")
    worker.wait_for("Orders: consuming")
    project.write("shop/consumers.py", EMBEDDED.format(version=2))
    worker.wait_for("Stream orders already exists")
    worker.wait_for_lines("Orders: consuming", 2)
    assert len(worker.lines_with(" changed: ")) == 1
    worker.interrupt()
    assert worker.finish() == 0
