"""manage.py nats_durable: durables are listed, paused, moved and deleted under running workers."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from nats_consumer import (
    JetstreamPullConsumer,
    Message,
    NatsConsumer,
    get_nats_client,
    operations,
)
from nats_consumer.declare import registry
from tests.live.support.stage import Stage, running
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

KINDS = ["Pull", "Push"]


@pytest.fixture(autouse=True)
def project(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project without the stage's own classes, which have no handler."""
    monkeypatch.setattr(registry, "_declared", {})


async def manage(*arguments: str) -> str:
    """Run `nats_durable` beside this event loop and return its output."""
    output, errors = io.StringIO(), io.StringIO()
    try:
        await asyncio.to_thread(
            call_command, "nats_durable", *arguments, stdout=output, stderr=errors, no_color=True
        )
    except CommandError as error:
        raise CommandError(errors.getvalue() + str(error)) from error
    return output.getvalue()


def consumer_of(stage: Stage, kind: str) -> tuple[type[NatsConsumer], list[str]]:
    """A consumer class, and the payloads that it handles."""
    handled: list[str] = []
    base: type[NatsConsumer] = getattr(stage, kind)

    class Billing(base):  # type: ignore[misc, valid-type] # either of the two
        async def handle_message(self, message: Message) -> None:
            handled.append(message.data.decode())

    return Billing, handled


@asynccontextmanager
async def two_workers(consumer: type[NatsConsumer]) -> AsyncIterator[list[NatsConsumer]]:
    """The consumer over two connections, as in two worker processes."""
    async with running(consumer) as one, running(consumer) as other:
        yield [one, other]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_pause_holds_messages_from_two_workers_until_it_is_resumed(
    stage: Stage, kind: str
) -> None:
    billing, handled = consumer_of(stage, kind)
    async with two_workers(billing):
        printed = await manage("pause", "Billing", "--for", "15m")
        assert f"Server: {stage.server.url}" in printed
        assert f"{stage.stream}/Billing: paused until 2" in printed
        await stage.publish("one")
        await becomes_true(lambda: stage.consumer(billing)["num_pending"] == 1)
        assert handled == []
        listed = await manage("list")
        assert "paused for 15 min" in listed
        assert "resumed" in await manage("resume", "Billing")
        await becomes_true(lambda: handled == ["one"])
        for names in ("Billing", "--all"):
            assert "Billing: not paused" in await manage("resume", names)


async def test_a_worker_says_how_to_end_a_pause(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    billing, _ = consumer_of(stage, "Pull")
    ending = f"End the pause with `manage.py nats_durable resume {stage.stream}/Billing`"
    async with running(billing):
        await manage("pause", "Billing", "--for", "15m")
        await becomes_true(
            lambda: any("is paused: no" in it and ending in it for it in caplog.messages)
        )
    async with running(billing):
        assert any("is paused until" in it and ending in it for it in caplog.messages)


async def test_a_worker_says_that_a_newer_one_may_have_changed_its_durable(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    billing, _ = consumer_of(stage, "Pull")
    newer = type("Billing", (billing,), {"ack_wait": 45.0})
    async with running(billing), running(newer):
        told = "ack_wait from 30s to 45s. Consuming continues. This is expected during a"
        await becomes_true(lambda: any(told in it for it in caplog.messages))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_seek_under_two_workers_delivers_again_from_there_on(
    stage: Stage, kind: str
) -> None:
    billing, handled = consumer_of(stage, kind)
    acks = await stage.publish("one", "two", "three")
    async with two_workers(billing):
        await becomes_true(lambda: len(handled) == 3)
        await stage.everything_is_settled(billing)
        printed = await manage("seek", "Billing", "--to-sequence", str(acks[1].seq), "--yes")
        assert "At most 2 messages come again, and at most 0 messages are skipped" in printed
        assert "nats_inbox forget --consumer Billing --newer-than AGE" in printed
        await becomes_true(lambda: sorted(handled) == ["one", "three", "three", "two", "two"])


async def test_a_seek_to_the_end_or_to_a_time_skips_what_was_stored_before(stage: Stage) -> None:
    billing, handled = consumer_of(stage, "Pull")
    async with running(billing):
        await manage("pause", "Billing")
        await stage.publish("one", "two")
        printed = await manage("seek", "Billing", "--to-end", "--yes")
        assert "at most 2 messages are skipped" in printed
        since = datetime.now(UTC)
        await stage.publish("three", "four")
        assert "moved. 2 messages to deliver" in await manage(
            "seek", "Billing", "--to-time", since.isoformat(), "--yes"
        )
        await manage("resume", "Billing")
        await becomes_true(lambda: sorted(handled) == ["four", "three"])


async def test_a_reset_delivers_again_what_is_not_settled(stage: Stage) -> None:
    attempts: list[int] = []

    class Billing(stage.Pull):  # type: ignore[name-defined, misc] # made for this test
        initial_retry_delay = 600.0
        max_retry_delay = 600.0

        async def handle_message(self, message: Message) -> None:
            attempts.append(message.metadata.num_delivered)
            raise ValueError("not today")

    async with two_workers(Billing):
        await stage.publish("one")
        await becomes_true(lambda: attempts == [1])
        await becomes_true(lambda: stage.consumer(Billing)["num_ack_pending"] == 1)
        assert "reset. 1 message to deliver" in await manage("reset", "Billing")
        await becomes_true(lambda: attempts == [1, 1])


async def test_a_deletion_is_refused_while_a_worker_reads_and_keeps_a_pause_when_forced(
    stage: Stage,
) -> None:
    billing, _ = consumer_of(stage, "Pull")
    async with two_workers(billing) as workers:
        await becomes_true(lambda: stage.consumer(billing)["num_waiting"] > 0)
        with pytest.raises(CommandError, match="Somebody reads from it") as refused:
            await manage("delete", "Billing", "--yes")
        assert "Not done for 1 of 1 durable." in str(refused.value)
        await manage("pause", "Billing", "--for", "1h")
        created = stage.consumer(billing)["created"]
        # The engine keeps the pause that it has seen.
        await becomes_true(lambda: [each.state for each in workers] == ["paused"] * 2)
        await manage("delete", "Billing", "--force", "--yes")

        def found() -> list[dict[str, Any]]:
            return list(stage.server.stream(stage.stream).get("consumer_detail", []))

        def is_again() -> bool:
            return any(each["created"] != created and each.get("paused") for each in found())

        await becomes_true(is_again, explain=found)


async def test_a_durable_that_no_consumer_declares_is_listed_and_deleted(stage: Stage) -> None:
    consumer_of(stage, "Pull")
    await operations.CreateConsumer(stream=stage.stream, durable_name="old").execute(stage.client)
    await operations.CreateConsumer(stream=stage.stream, durable_name="Billing").execute(
        stage.client
    )
    await stage.publish("one")
    lines = (await manage("list")).splitlines()
    assert f"{stage.stream}: 2 durables" in lines
    cells = [line.split() for line in lines if line.startswith("  ")]
    assert cells[1:] == [
        ["Billing", "Billing", "1", "0", "no", "never"],
        ["old", "-", "1", "0", "no", "never"],
    ]
    printed = await manage("delete", f"{stage.stream}/old", "--yes")
    assert "1 message not delivered yet, 0 not settled" in printed
    assert "old" not in await manage("list")


@pytest.mark.parametrize(("answer", "stays"), [("y", False), ("", True)])
async def test_a_deletion_asks_first(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, answer: str, stays: bool
) -> None:
    consumer_of(stage, "Pull")
    await operations.CreateConsumer(stream=stage.stream, durable_name="old").execute(stage.client)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    printed = await manage("delete", f"{stage.stream}/old")
    assert ("Nothing was done." in printed) is stays
    assert ("old" in await manage("list")) is stays


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pause"], "Name consumers, as CLASS or STREAM/DURABLE, or add --all"),
        (["pause", "Billing", "--all"], "Name consumers, as CLASS"),
        (["pause", "Billings"], "Did you mean 'Billing'"),
        (["pause", "Billing"], "does not exist"),
        (["reset", "Billing"], "does not exist"),
        (["pause", "a/b.c"], "dots"),
        (["pause", "Billing", "--until", "2020-01-01T00:00Z"], "has passed already"),
        (["pause", "Billing", "--until", "noon"], "'noon' is not a time"),
        (["pause", "Billing", "--until", "9999-12-31T23:59-01:00"], "is not a time"),
        (["pause", "Billing", "--for", "soon"], "'soon' is not an age"),
        (["pause", "Billing", "--for", "999999w"], "more than a century"),
        (["seek", "Billing", "--to-sequence", "0"], "not a whole number from 1"),
        (["seek", "Billing", "--to-sequence", "9" * 20], "not a whole number from 1"),
        (["seek", "Billing"], "one of the arguments"),
        (["list", "--connection", "nowhere"], "There is no connection 'nowhere'"),
    ],
)
async def test_what_cannot_be_done_is_an_error(
    stage: Stage, arguments: list[str], message: str
) -> None:
    consumer_of(stage, "Pull")
    with pytest.raises(CommandError, match=message):
        await manage(*arguments)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"deliver_policy": "new"}, "created with deliver_policy 'new'"),
        (
            {"deliver_policy": "by_start_sequence", "opt_start_seq": 3},
            "opt_start_seq 3, and cannot begin earlier",
        ),
    ],
)
async def test_a_seek_that_the_server_refuses_says_how_to_begin_there(
    stage: Stage, declared: dict[str, Any], message: str
) -> None:
    consumer_of(stage, "Pull")
    await operations.CreateConsumer(
        stream=stage.stream, durable_name="Billing", **declared
    ).execute(stage.client)
    await stage.publish("one", "two", "three")
    with pytest.raises(CommandError, match=message) as refused:
        await manage("seek", "Billing", "--to-sequence", "1", "--yes")
    assert "start_sequence = 1 in its class" in str(refused.value)


async def test_a_seek_beyond_the_end_would_skip_what_is_not_stored_yet(stage: Stage) -> None:
    consumer_of(stage, "Pull")
    await operations.CreateConsumer(stream=stage.stream, durable_name="Billing").execute()
    await stage.publish("one", "two")
    with pytest.raises(CommandError, match="would skip messages that are not stored yet"):
        await manage("seek", "Billing", "--to-sequence", "4", "--yes")
    await manage("seek", "Billing", "--to-sequence", "3", "--yes")
    printed = await manage("seek", "Billing", "--to-sequence", "1", "--yes")
    assert "At most 2 messages come again" in printed


async def test_a_durable_that_may_not_be_paused_does_not_hold_up_the_others(
    stage: Stage, settings: Settings, configured: Callable[[str], NatsServer]
) -> None:
    consumer_of(stage, "Pull")
    denied = f"$JS.API.CONSUMER.PAUSE.{stage.stream}.Billing"
    server = configured(
        f"""
        authorization {{ users = [
          {{ user: shop, password: word, permissions: {{ publish: {{ deny: ["{denied}"] }} }} }}
        ] }}
        """
    )
    arguments = {"servers": server.url, "user": "shop", "password": "word"}
    settings.NATS_CONSUMER = {"connect_args": arguments}
    subjects = [f"{stage.stream}.>"]
    await operations.CreateStream(name=stage.stream, subjects=subjects).execute()
    for durable in ("Billing", "mails"):
        await operations.CreateConsumer(stream=stage.stream, durable_name=durable).execute()
    with pytest.raises(CommandError, match="Not done for 1 of 2 durables") as refused:
        await manage("pause", "Billing", f"{stage.stream}/mails")
    assert f"{stage.stream}/Billing: " in str(refused.value)
    async with await get_nats_client() as client:
        assert (await client.jetstream().consumer_info(stage.stream, "mails")).paused


async def test_an_ephemeral_consumer_has_no_durable_to_pause(stage: Stage) -> None:
    class Cache(stage.Pull):  # type: ignore[name-defined, misc] # made for this test
        ephemeral = True

        async def handle_message(self, message: Message) -> None: ...

    with pytest.raises(CommandError, match="each process has a durable of its own"):
        await manage("pause", "Cache")
    assert "Server" not in await manage("pause", "--all")


async def test_durables_of_two_systems_are_paused_together(
    stage: Stage, settings: Settings, own_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    consumer_of(stage, "Pull")
    settings.NATS_CONSUMER = {
        **settings.NATS_CONSUMER,
        "connections": {"analytics": {"servers": own_server.url}},
    }

    class Events(JetstreamPullConsumer):
        connection = "analytics"
        stream_name = "events"
        filter_subject = "events.>"

        async def handle_message(self, message: Message) -> None: ...

    await operations.CreateStream(name="events", subjects=["events.>"], using="analytics").execute()
    for stream, durable, using in (
        (stage.stream, "Billing", "default"),
        ("events", "Events", "analytics"),
    ):
        await operations.CreateConsumer(stream=stream, durable_name=durable, using=using).execute()
    printed = await manage("pause", "--all")
    assert f"Server: {stage.server.url}" in printed
    assert f"Server: {own_server.url}" in printed
    assert own_server.consumer("events", "Events")["paused"]
    assert stage.server.consumer(stage.stream, "Billing")["paused"]
    printed = await manage("resume", "events/Events", "--connection", "analytics")
    assert "events/Events: resumed." in printed
    with pytest.raises(CommandError, match="Events is on the connection analytics"):
        await manage("pause", "Events", "--connection", "default")


async def test_a_push_consumer_continues_after_a_pause_that_another_program_ended(
    stage: Stage,
) -> None:
    billing, handled = consumer_of(stage, "Push")
    async with running(billing) as consumer:
        await manage("pause", "Billing")
        await stage.publish("one")
        await becomes_true(lambda: consumer.state == "paused")
        await stage.jetstream.resume_consumer(stage.stream, "Billing")
        await becomes_true(lambda: handled == ["one"])
