"""Running consumers answer those who ask by NATS's service protocol."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import Message, get_nats_client
from nats_consumer.client import Client
from nats_consumer.exceptions import RequestTimeout
from nats_consumer.operate.fleet import Worker, workers
from tests.live.support.stage import Stage, running
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

# The worker may do what a consumer needs, and neither hear nor answer questions about services.
ACCOUNTS = """
authorization {
  users = [
    { user: worker, password: word, permissions: {
        subscribe: { deny: ["$SRV.>"] } } }
    { user: mute, password: word, permissions: {
        publish: { deny: ["answers.>"] } } }
    { user: blind, password: word, permissions: {
        publish: { deny: ["$SRV.>"] } } }
    { user: operator, password: word }
  ]
}
"""


async def ask(client: Client, question: str, reply: str = "") -> list[dict[str, Any]]:
    """The answers that come within half a second after one another."""
    inbox = reply or client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(question, b"", reply=inbox)
    answers = []
    while True:
        try:
            answer = await subscription.next_msg(0.5)
        except RequestTimeout:
            return answers
        if answer.data:
            answers.append(json.loads(answer.data))


async def mine(stage: Stage) -> list[Worker]:
    """The workers on the stage's stream."""
    return [each for each in await workers(stage.client) or () if each.stream == stage.stream]


async def test_exactly_the_running_consumptions_answer(stage: Stage) -> None:
    class Billing(stage.Pull):  # type: ignore[name-defined, misc] # made for this test
        async def handle_message(self, message: Message) -> None:
            raise ValueError("secret 4711")

    assert await mine(stage) == []
    async with running(Billing), running(Billing):
        await stage.publish("payload 4711")
        await becomes_true(lambda: stage.consumer(Billing)["delivered"]["consumer_seq"] > 0)
        found = await mine(stage)
        assert [(each.consumer, each.durable) for each in found] == [("Billing", "Billing")] * 2
        assert {each.state for each in found} == {"consuming"}
        assert sum(each.received for each in found) > 0
        text = json.dumps(await ask(stage.client, "$SRV.STATS.Billing"))
        assert "4711" not in text
    assert await mine(stage) == []


async def test_answers_have_the_shape_that_the_nats_command_reads(stage: Stage) -> None:
    class Audit(stage.Push):  # type: ignore[name-defined, misc] # made for this test
        async def handle_message(self, message: Message) -> None: ...

    async with running(Audit):
        [ping] = [
            each
            for each in await ask(stage.client, "$SRV.PING.Audit")
            if each["metadata"]["stream"] == stage.stream
        ]
        assert ping["type"] == "io.nats.micro.v1.ping_response"
        assert ping["metadata"]["kind"] == "push"
        [info] = await ask(stage.client, f"$SRV.INFO.Audit.{ping['id']}")
        assert info["type"] == "io.nats.micro.v1.info_response"
        assert info["endpoints"] == [
            {"name": "consume", "subject": f"{stage.stream}.>", "queue_group": "Audit"}
        ]
        [stats] = await ask(stage.client, f"$SRV.STATS.Audit.{ping['id']}")
        assert stats["type"] == "io.nats.micro.v1.stats_response"
        assert stats["endpoints"][0]["num_errors"] == 0
        for nobody in ("$SRV.PING.Nobody", "$SRV.PING.Audit.another", "$SRV.OTHER.Audit"):
            assert await ask(stage.client, nobody) == []


async def test_a_consumer_that_shall_not_announce_itself_does_not(
    stage: Stage, settings: Settings
) -> None:
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "announce": False}

    class Quiet(stage.Pull):  # type: ignore[name-defined, misc] # made for this test
        async def handle_message(self, message: Message) -> None: ...

    async with running(Quiet):
        assert await mine(stage) == []


@pytest.fixture
def restricted(tmp_path: Path, settings: Settings) -> Iterator[NatsServer]:
    """A server whose users have the permissions above."""
    file = tmp_path / "accounts.conf"
    file.write_text(ACCOUNTS)
    server = NatsServer(tmp_path, ["-c", str(file)])
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("user", ["worker", "mute"])
async def test_a_user_that_may_not_announce_consumes_and_says_so_once(
    stage: Stage,
    restricted: NatsServer,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    user: str,
) -> None:
    handled: list[bytes] = []

    class Billing(stage.Pull):  # type: ignore[name-defined, misc] # made for this test
        async def handle_message(self, message: Message) -> None:
            handled.append(message.data)

    def as_user(name: str) -> dict[str, Any]:
        return {"servers": restricted.url, "user": name, "password": "word"}

    caplog.set_level(logging.INFO, "nats_consumer")
    settings.NATS_CONSUMER = {"connect_args": as_user(user)}

    def lines() -> list[logging.LogRecord]:
        return [each for each in caplog.records if "$SRV.>" in each.getMessage()]

    async with await get_nats_client(**as_user("operator")) as client:
        jetstream = client.jetstream()
        await jetstream.add_stream(name=stage.stream, subjects=[f"{stage.stream}.>"])
        async with running(Billing):
            for number in range(3):
                await ask(client, "$SRV.PING", reply=f"answers.{number}")
            await becomes_true(lambda: bool(lines()))
            await jetstream.publish(f"{stage.stream}.created", b"one")
            await becomes_true(lambda: handled == [b"one"])
            found = [each.consumer for each in await workers(client) or ()]
    assert found == ([] if user == "worker" else ["Billing"])
    assert [each.levelname for each in lines()] == ["INFO"]
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


async def test_a_question_whose_reply_is_not_permitted_does_not_silence_the_later_answers(
    stage: Stage, restricted: NatsServer, settings: Settings
) -> None:
    class Billing(stage.Pull):  # type: ignore[name-defined, misc] # made for this test
        async def handle_message(self, message: Message) -> None: ...

    settings.NATS_CONSUMER = {
        "connect_args": {"servers": restricted.url, "user": "mute", "password": "word"}
    }
    async with await get_nats_client(
        servers=restricted.url, user="operator", password="word"
    ) as client:
        await client.jetstream().add_stream(name=stage.stream, subjects=[f"{stage.stream}.>"])
        async with running(Billing):
            assert await ask(client, "$SRV.PING", reply="answers.nobody") == []
            assert [each.consumer for each in await workers(client) or ()] == ["Billing"]


async def test_a_user_that_may_not_ask_for_workers_learns_it(restricted: NatsServer) -> None:
    async with await get_nats_client(
        servers=restricted.url, user="blind", password="word"
    ) as client:
        assert await workers(client) is None
