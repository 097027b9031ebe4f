"""manage.py nats_status: what consumers look like from their server."""

import asyncio
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from nats_consumer import JetstreamPullConsumer, Message, get_nats_client, operations
from nats_consumer.declare import registry
from nats_consumer.operate.status import _Look, status
from tests.live.support.project import Project
from tests.live.support.stage import Stage, running
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def project(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project without the stage's own classes, which have no handler, and without an outbox."""
    monkeypatch.setattr(registry, "_declared", {})
    monkeypatch.setattr("nats_consumer.contrib.outbox.status.databases", list)


async def manage(*arguments: str) -> tuple[int, str]:
    """Run `nats_status` beside this event loop; return its exit code and its output."""
    output = io.StringIO()
    try:
        await asyncio.to_thread(
            call_command, "nats_status", *arguments, stdout=output, no_color=True
        )
    except CommandError as error:
        return error.returncode, output.getvalue() + str(error)
    except SystemExit as ended:
        return int(str(ended.code)), output.getvalue()
    return 0, output.getvalue()


async def seen(*arguments: str) -> dict[str, Any]:
    """The one consumer, as the JSON has it."""
    _, printed = await manage("--json", *arguments)
    answer = json.loads(printed)
    assert answer["version"] == 1
    [server] = answer["servers"]
    [consumer] = server["consumers"]
    return dict(consumer)


def billing(stage: Stage, name: str = "Billing", **attributes: Any) -> type[Any]:
    """A consumer class of the stage's stream."""

    async def handle_message(self: Any, message: Message) -> None: ...

    body = {
        "stream_name": stage.stream,
        "filter_subject": f"{stage.stream}.>",
        "handle_message": handle_message,
        **attributes,
    }
    return type(name, (JetstreamPullConsumer,), body)


async def test_a_consumer_is_missing_then_consumed_then_idle_then_unattended(stage: Stage) -> None:
    consumer = billing(stage)
    assert (await seen())["state"] == "missing"
    assert (await manage("--check"))[0] == 2
    async with running(consumer), running(consumer):
        found = await seen()
        assert (found["state"], found["workers"]) == ("consumed", 2)
        await stage.publish("one")
        await stage.everything_is_settled(consumer)
        code, printed = await manage("--check")
        assert (code, printed) == (0, "OK: 1 consumers\n")
    found = await seen()
    assert (found["state"], found["workers"], found["oldest_seconds"]) == ("idle", 0, 0)
    await stage.publish("two", "three")
    found = await seen()
    assert (found["state"], found["pending"]) == ("unattended", 2)
    assert 0 <= found["oldest_seconds"] < 30
    code, printed = await manage("--check")
    assert code == 2
    assert "CRITICAL: Billing: no worker reads, and 2 messages wait" in printed


async def test_a_busy_pull_consumer_without_a_request_is_consumed(stage: Stage) -> None:
    release = asyncio.Event()

    async def handle_message(self: Any, message: Message) -> None:
        await release.wait()

    consumer = billing(stage, handle_message=handle_message, concurrency=1, max_ack_pending=1)
    async with running(consumer):
        await stage.publish(*range(3))
        await becomes_true(lambda: stage.consumer(consumer)["num_ack_pending"] == 1)
        assert (await seen())["state"] == "consumed"
        release.set()


async def test_a_pause_is_shown_and_no_alarm(stage: Stage) -> None:
    billing(stage)
    await asyncio.to_thread(call_command, "nats_apply", "--yes", stdout=io.StringIO())
    await stage.publish("one")
    await asyncio.to_thread(
        call_command, "nats_durable", "pause", "Billing", "--for", "1h", stdout=io.StringIO()
    )
    found = await seen()
    assert found["state"] == "paused"
    assert 3500 < found["paused_seconds"] <= 3600
    assert (await manage("--check"))[0] == 0
    assert "paused 60 min" in (await manage())[1]


async def test_what_differs_and_what_nobody_declares_is_a_warning(stage: Stage) -> None:
    billing(stage)
    await asyncio.to_thread(call_command, "nats_apply", "--yes", stdout=io.StringIO())
    registry._declared.clear()
    billing(stage, ack_wait=60.0)
    await operations.CreateConsumer(stream=stage.stream, durable_name="old").execute(stage.client)
    code, printed = await manage("--check")
    assert code == 1
    assert "WARNING: Billing differs: ack_wait: 30s -> 1m" in printed
    assert f"WARNING: no class declares the durable {stage.stream}/old" in printed


async def test_limits_make_a_backlog_and_dead_letters_critical(stage: Stage) -> None:
    billing(stage)
    await asyncio.to_thread(call_command, "nats_apply", "--yes", stdout=io.StringIO())
    await give_up(stage, "Billing")
    await stage.publish("one", "two")
    assert (await seen())["dead_letters"] == 1
    code, printed = await manage("--check", "--max-pending", "1", "--max-dead", "0")
    assert code == 2
    assert "2 messages not settled, more than 1" in printed
    assert "1 dead letters, more than 0" in printed


async def give_up(stage: Stage, *durables: str) -> None:
    """Store a dead letter of each durable."""
    await operations.CreateStream(
        name=f"{stage.stream}-dlq", subjects=[f"dlq.{stage.stream}.>"]
    ).execute(stage.client)
    for durable in durables:
        await stage.jetstream.publish(f"dlq.{stage.stream}.{durable}", b"")


async def test_dead_letters_are_counted_for_the_consumer_that_gave_them_up(stage: Stage) -> None:
    billing(stage)
    billing(stage, "Mail")
    ephemeral = billing(stage, "Follow", ephemeral=True)
    durables = [ephemeral().get_durable_name(), "Follow-0123456789ab", "Follow-er"]
    # The last one is a payload that is kept apart.
    await give_up(stage, "Billing", "Billing", *durables, "Billing.payload.7.1")
    code, printed = await manage("--json")
    [server] = json.loads(printed)["servers"]
    found = {each["consumer"]: each["dead_letters"] for each in server["consumers"]}
    assert (code, found) == (0, {"Billing": 2, "Mail": 0, "Follow": 2})


async def test_a_server_that_is_away_is_unknown_and_every_consumer_is_listed(
    stage: Stage, settings: Settings, own_server: NatsServer
) -> None:
    billing(stage)
    settings.NATS_CONSUMER = {"connect_args": {"servers": [own_server.url], "connect_timeout": 0.2}}
    own_server.stop()
    assert (await manage("--json"))[0] == 1
    printed = (await manage("--json"))[1].rpartition("}")[0] + "}"
    [server] = json.loads(printed)["servers"]
    assert server["server"] is None
    [consumer] = server["consumers"]
    assert (consumer["consumer"], consumer["state"], consumer["pending"]) == ("Billing", None, None)
    code, printed = await manage("--check")
    assert code == 3
    assert printed.startswith("UNKNOWN: connection default: No NATS server")


# As the worker's own user often is: it may ask about what it knows, and list nothing.
NO_LISTS = """
authorization {
  users = [ { user: shop, password: word, permissions: { publish: { deny: [
    "$JS.API.STREAM.LIST", "$JS.API.CONSUMER.LIST.>", "$SRV.>"
  ] } } } ]
}
"""


async def test_who_may_not_list_is_told_of_the_declared_consumers(
    stage: Stage, settings: Settings, configured: Callable[[str], NatsServer]
) -> None:
    billing(stage)
    billing(stage, name="Audit", durable_name="audit")
    url = configured(NO_LISTS).url
    settings.NATS_CONSUMER = {"connect_args": {"servers": url, "user": "shop", "password": "word"}}
    async with await get_nats_client() as client:
        js = client.jetstream()
        await js.add_stream(name=stage.stream, subjects=[f"{stage.stream}.>"])
        # Older versions gave every class without a durable this one.
        await js.add_consumer(stage.stream, durable_name="default")
        await js.publish(f"{stage.stream}.created", b"1")
    code, printed = await manage("--json")
    found = {it["consumer"]: it for it in json.loads(printed)["servers"][0]["consumers"]}
    assert code == 0
    assert (found["Billing"]["durable"], found["Billing"]["pending"]) == ("default", 1)
    assert found["Audit"]["state"] == "missing"
    assert found["Audit"]["workers"] is None
    assert "Workers: this user may not ask them." in (await manage())[1]


async def test_a_command_whose_reader_ends_first_ends_without_a_traceback(
    stage: Stage, make_project: Callable[..., Project]
) -> None:
    project = make_project(
        f"""
        from nats_consumer import JetstreamPullConsumer

        class Orders(JetstreamPullConsumer):
            stream_name = {stage.stream!r}
            filter_subject = "{stage.stream}.>"

            def handle_message(self, message): ...
        """
    )

    def unread() -> tuple[int, str]:
        command = [sys.executable, "manage.py", "nats_status"]
        with subprocess.Popen(
            command, cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            return process.wait(), process.stderr.read()

    assert await asyncio.to_thread(unread) == (128 + signal.SIGPIPE, "")


async def test_a_large_backlog_sends_no_payloads(stage: Stage) -> None:
    billing(stage)
    await asyncio.to_thread(call_command, "nats_apply", "--yes", stdout=io.StringIO())
    await stage.publish(*[b"x" * 100_000] * 3)
    found = await seen()
    assert (found["pending"], found["oldest_seconds"]) == (3, None)


async def test_a_stream_that_is_deleted_during_the_look_does_not_hide_the_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing(stage)
    await operations.CreateConsumer(stream=stage.stream, durable_name="Billing").execute()
    await stage.publish("one")
    look = _Look._stored

    async def deleted_before(self: _Look, *what: Any) -> Any:
        await stage.jetstream.delete_stream(stage.stream)
        return await look(self, *what)

    monkeypatch.setattr(_Look, "_stored", deleted_before)
    code, printed = await manage("--json")
    [server] = json.loads(printed)["servers"]
    assert (code, server["error"]) == (0, None)
    assert server["consumers"][0]["pending"] == 1


async def test_streams_that_no_class_names_are_shown_on_demand(stage: Stage) -> None:
    billing(stage)
    other = f"{stage.stream}-other"
    await operations.CreateStream(name=other, subjects=[f"other.{stage.stream}"]).execute(
        stage.client
    )
    assert other not in (await manage())[1]
    assert other in (await manage("--all"))[1]


async def test_a_thousand_durables_are_looked_at_at_once(stage: Stage) -> None:
    billing(stage)
    for start in range(0, 1000, 100):
        adding = (
            stage.jetstream.add_consumer(stage.stream, durable_name=f"d{start + number}")
            for number in range(100)
        )
        await asyncio.gather(*adding)
    sent = stage.server.received()
    began = time.monotonic()
    [server] = await status()
    took = time.monotonic() - began
    assert len(server.unclaimed) == 1000
    # A page has 256 durables, so nothing is asked one by one.
    assert stage.server.received() - sent < 30
    assert took < 10
