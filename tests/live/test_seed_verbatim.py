"""The README that the earlier packages promised by (seed/README.md, unchanged): its code blocks, as
they stand there, work."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from pytest_django import Settings

import nats_consumer
from nats_consumer.handler import ConsumerHandler
from tests.live.support.project import SETTINGS, Project
from tests.live.support.stage import Stage, running
from tests.servers import NatsServer
from tests.waiting import becomes_true

README = (Path(__file__).parent / "seed" / "README.md").read_text()


def blocks() -> list[str]:
    """The Python blocks; one of them is not closed, and the next heading ends it."""
    found = re.findall(r"^```python\n(.*?)(?=^```)", README, re.MULTILINE | re.DOTALL)
    return [block.partition("\n### ")[0] for block in found]


def block(words: str) -> str:
    """The one block that has these words."""
    (found,) = [each for each in blocks() if words in each]
    return found


def run(code: str, **names: Any) -> dict[str, Any]:
    namespace = {**vars(nats_consumer), "ConsumerHandler": ConsumerHandler, **names}
    exec(compile(code, "seed/README.md", "exec"), namespace)
    return namespace


def settings_of(code: str) -> dict[str, Any]:
    return {name: value for name, value in run(code).items() if name.isupper()}


@pytest.fixture
def shop(make_project: Callable[..., Project], own_server: NatsServer) -> Project:
    consumers = block("class OrderHandler(ConsumerHandler)") + block("class BatchOrderConsumer")
    project = make_project(consumers, own_server.url)
    project.write("publish.py", block("async def publish_messages"))
    project.write(
        "settings.py",
        SETTINGS.format(url=own_server.url)
        # The dots stand for the project's own apps.
        + re.sub(
            r"^ *\.\.\.$", '"shop",', block('"max_reconnect_attempts": 5'), count=1, flags=re.M
        ).replace("    ...\n", "")
        + f'NATS_CONSUMER["connect_args"]["servers"] = [{own_server.url!r}]\n',
    )
    return project


def test_every_block_of_the_readme_is_tried_here() -> None:
    assert len(blocks()) == 13


def test_settings_consumers_and_publishing_script_work_together(
    shop: Project, own_server: NatsServer
) -> None:
    worker = shop.consume("--setup")
    worker.wait_for("OrderConsumer: consuming")
    worker.wait_for("BatchOrderConsumer: consuming")
    publisher = shop.run("publish.py")
    assert publisher.finish() == 0
    assert "Publishing message 4..." in publisher.output
    created = worker.wait_for_lines("INFO shop.consumers: New order created: ", 10)
    worker.interrupt()
    assert worker.finish() == 0, worker.output
    orders = [{"id": i, "name": f"Order {i}", "status": "created"} for i in range(5)]
    expected = [f"INFO shop.consumers: New order created: {order}" for order in orders]
    assert sorted(created) == sorted(2 * expected)
    for durable in ("OrderConsumer", "BatchOrderConsumer"):
        assert own_server.consumer("orders", durable)["num_ack_pending"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        line.removeprefix("python manage.py nats_consumer").split()
        for line in README.splitlines()
        if line.startswith("python manage.py nats_consumer")
    ],
    ids=" ".join,
)
def test_every_command_line_runs(shop: Project, arguments: list[str]) -> None:
    setup = shop.consume("OrderConsumer", "--setup")
    setup.wait_for("OrderConsumer: consuming")
    setup.interrupt()
    assert setup.finish() == 0, setup.output
    worker = shop.consume(*arguments)
    worker.wait_for("OrderConsumer: consuming")
    worker.interrupt()
    assert worker.finish() == 0, worker.output


def test_subject_lists_collide_as_it_says(caplog: pytest.LogCaptureFixture) -> None:
    subjects = run(block("# ❌ AVOID: Mixed separators"))["subjects"]

    class Handler(ConsumerHandler):
        pass

    with caplog.at_level(logging.WARNING, "nats_consumer"):
        Handler(subjects)
    assert caplog.text.count("handle_created") >= 2


def test_a_colliding_handler_warns(caplog: pytest.LogCaptureFixture) -> None:
    handler = run(block("class ProblematicHandler"))["ProblematicHandler"]
    with caplog.at_level(logging.WARNING, "nats_consumer"):
        handler()
    assert "users-created" in caplog.text
    assert "orders.created" in caplog.text


@pytest.mark.parametrize(
    "words",
    [
        "# No filtering (process everything)",
        "# Choose error acknowledgment behavior",
        "max_retries = 5  # Maximum retry attempts",
        "class CreationConsumer",
    ],
)
def test_declarations_are_accepted(words: str) -> None:
    run(block(words))
    assert [problem for problem in run_checks() if problem.is_serious()] == []


def test_settings_for_uvloop_are_accepted(settings: Settings) -> None:
    settings.NATS_CONSUMER = settings_of(block('"event_loop_policy"'))["NATS_CONSUMER"]
    assert [problem for problem in run_checks() if problem.is_serious()] == []
    assert nats_consumer.settings.default_durable_name() == "my-app"


@pytest.mark.anyio
async def test_metrics_are_there_in_the_handler(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    base = run(block("self.total_success_count"))["MyConsumer"]

    class Monitored(base):  # type: ignore[misc, valid-type]
        stream_name = stage.stream
        filter_subject = ">"

    async with running(Monitored) as consumer:
        await stage.publish("one")
        await becomes_true(lambda: consumer.total_success_count == 1)
    printed = capsys.readouterr().out
    assert "Success count: 0" in printed
    assert "Is running: True" in printed
    assert "Is connected: True" in printed


@pytest.mark.anyio
async def test_the_fallback_tells_the_reasons_apart(stage: Stage) -> None:
    robust = run(block("class RobustHandler"), logger=logging.getLogger("shop"))["RobustHandler"]

    class Robust(stage.Pull):  # type: ignore[name-defined, misc]
        initial_retry_delay = 0.05

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.handler = robust([f"{stage.stream}.listed"])

        async def handle_message(self, message: Any) -> None:
            await self.handler.handle(message)

    async with running(Robust):
        await stage.publish("discarded", event="unknown")
        await stage.publish("handed back", event="listed")
        await becomes_true(
            lambda: (
                stage.consumer(Robust)["ack_floor"]["stream_seq"] == 1
                and stage.consumer(Robust)["num_redelivered"] == 1
            )
        )
