"""Idempotent consumers: the rows that their handlers write happen once for each message."""

import io
import logging
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models.functions import Now
from pytest_django import Settings

from nats_consumer import ConsumerHandler, ErrorAckBehavior, JetstreamPullConsumer, handle
from nats_consumer.contrib.inbox import idempotent
from nats_consumer.exceptions import ConfigurationError, SettledTooEarly
from nats_consumer.outcomes import Ack, DeadLetter, Drop, Retry
from nats_consumer.testing import adeliver, deliver
from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.project import Project
from tests.live.support.stage import Stage, running
from tests.project.orders.models import Receipt
from tests.waiting import becomes_true

pytestmark = [pytest.mark.anyio, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def rows(transactional_db: None) -> Any:
    """The model of the app."""
    from nats_consumer.contrib.inbox.models import InboxMessage

    return InboxMessage.objects


def wrote(message: Any, name: str = "") -> None:
    """Write the effect of a message: a row for each time."""
    Receipt.objects.create(number=int(message.data), thread=name)


async def effects(name: str = "") -> Counter[int]:
    """By number of the message: how many times it had its effect."""
    found = Receipt.objects.filter(thread=name).values_list("number", flat=True)
    return Counter(await sync_to_async(list)(found))


async def publish(stage: Stage, payload: int, msg_id: str, event: str = "paid") -> bool:
    """Publish with an id; whether the stream stored it."""
    ack = await stage.jetstream.publish(
        f"{stage.stream}.{event}", str(payload).encode(), headers={"Nats-Msg-Id": msg_id}
    )
    return not ack.duplicate


async def publish_again(stage: Stage, payload: int, msg_id: str, event: str = "paid") -> None:
    """Publish what the stream has had, when it does not remember the id any more."""
    while not await publish(stage, payload, msg_id, event):
        pass


async def forget_ids_soon(stage: Stage) -> None:
    """Have the stream remember message ids for the shortest time."""
    config = (await stage.jetstream.stream_info(stage.stream)).config
    await stage.jetstream.update_stream(config, duplicate_window=0.1)


async def test_a_message_that_is_published_twice_is_handled_once_by_each_consumer(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    class Books(stage.Pull):
        idempotent = True

        def handle_message(self, message: Any) -> None:
            wrote(message, "books")

    class Stock(stage.Push):
        idempotent = "default"

        def handle_message(self, message: Any) -> None:
            wrote(message, "stock")

    caplog.set_level(logging.DEBUG, "nats_consumer.handler")
    await forget_ids_soon(stage)
    async with running(Books), running(Stock):
        await publish(stage, 8, "order-8")
        await publish_again(stage, 8, "order-8")
        await publish_again(stage, 8, "order-8", event="shipped")
        await stage.everything_is_settled(Books)
        await stage.everything_is_settled(Stock)
    assert await effects("books") == {8: 2}, "one for each subject"
    assert await effects("stock") == {8: 2}
    assert "order-8" in caplog.text


@pytest.mark.parametrize("msg_id", ["order-8", None])
async def test_a_replay_reaches_only_the_consumer_that_failed(
    stage: Stage, msg_id: str | None
) -> None:
    repaired = threading.Event()

    class Books(stage.Pull):
        idempotent = True

        def handle_message(self, message: Any) -> None:
            wrote(message, "books")
            if not repaired.is_set():
                raise DeadLetter("no such customer")

    class Stock(stage.Pull):
        idempotent = True

        def handle_message(self, message: Any) -> None:
            wrote(message, "stock")

    headers = {"Nats-Msg-Id": msg_id} if msg_id else None
    await stage.jetstream.publish(f"{stage.stream}.paid", b"8", headers=headers)
    async with running(Books), running(Stock):
        await stage.everything_is_settled(Books)
        await stage.everything_is_settled(Stock)
        assert await effects("books") == {}
        for repairs in (False, True):
            if repairs:
                repaired.set()
            await sync_to_async(replay)(stage.stream)
            await stage.everything_is_settled(Books)
            await stage.everything_is_settled(Stock)
    assert await effects("books") == {8: 1}
    assert await effects("stock") == {8: 1}


def replay(stream: str) -> None:
    call_command("nats_dlq", "replay", "--stream", stream, "--all", stdout=io.StringIO())


COMMITTED: list[Any] = [Ack, Ack(), Drop("no use")]
ROLLED_BACK: list[Any] = [Retry, Retry(0.01), DeadLetter("no customer")]
CASES = [
    *((answer, how, 1) for answer in COMMITTED for how in ("returned", "raised")),
    *((answer, how, 0) for answer in ROLLED_BACK for how in ("returned", "raised")),
    (None, "returned", 1),
    ((each for each in ()), "returned", 0),
    (ValueError("no"), "raised", 0),
]


@pytest.mark.parametrize(("answer", "how", "kept"), CASES)
async def test_only_ack_and_drop_keep_what_the_handler_wrote(
    stage: Stage, answer: Any, how: str, kept: int
) -> None:
    class Orders(stage.Pull):
        idempotent = True
        max_retries = 1
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        def handle_message(self, message: Any) -> Any:
            if message.attempt > 1:
                return Drop("enough")
            wrote(message)
            if how == "raised":
                raise answer
            return answer

    await stage.publish(8)
    async with running(Orders):
        await stage.everything_is_settled(Orders)
    assert await effects() == ({8: 1} if kept else {})


async def test_what_is_retried_is_handled_at_the_next_attempt(stage: Stage) -> None:
    class Orders(stage.Pull):
        idempotent = True

        def handle_message(self, message: Any) -> Any:
            wrote(message)
            return Retry(0.01) if message.attempt == 1 else None

    await stage.publish(8)
    async with running(Orders):
        await stage.everything_is_settled(Orders)
    assert await effects() == {8: 1}


@pytest.mark.parametrize("settle", ["ack", "nak", "term", "ack_sync"])
async def test_a_message_cannot_be_settled_before_the_commit(stage: Stage, settle: str) -> None:
    refused = []

    class Orders(stage.Pull):
        idempotent = True

        def handle_message(self, message: Any) -> None:
            wrote(message)
            try:
                getattr(message, settle)()
            except SettledTooEarly as error:
                refused.append(error)

    await stage.publish(8)
    async with running(Orders):
        await stage.everything_is_settled(Orders)
    assert len(refused) == 1
    assert await effects() == {8: 1}


@pytest.mark.parametrize("late", ["commits", "rolls back"])
async def test_a_late_handler_and_its_retry_have_one_effect(
    stage: Stage, rows: Any, late: str
) -> None:
    release = threading.Event()
    attempts = []

    class Orders(stage.Pull):
        idempotent = True
        concurrency = 2
        handler_timeout = 0.2
        max_retries = 20

        def handle_message(self, message: Any) -> None:
            attempts.append(message.attempt)
            if message.attempt == 1:
                release.wait(20)
                if late == "rolls back":
                    raise ValueError("no")
            wrote(message)

    try:
        await stage.publish(8)
        async with running(Orders) as orders:
            await becomes_true(lambda: orders._consumption.counters()["failed"] > 0)
            release.set()
            await stage.everything_is_settled(Orders)
    finally:
        release.set()
    assert await effects() == {8: 1}


async def test_the_first_message_of_a_stream_that_was_recreated_is_handled(stage: Stage) -> None:
    class Orders(stage.Pull):
        idempotent = True

        def handle_message(self, message: Any) -> None:
            wrote(message)

    for _ in range(2):
        await stage.publish(1)
        async with running(Orders):
            await stage.everything_is_settled(Orders)
        await stage.jetstream.delete_stream(stage.stream)
        await stage.jetstream.add_stream(name=stage.stream, subjects=[f"{stage.stream}.>"])
    assert await effects() == {1: 2}


async def test_an_error_at_the_commit_is_a_failed_attempt(stage: Stage) -> None:
    attempts = []

    class Orders(stage.Pull):
        idempotent = True

        def handle_message(self, message: Any) -> None:
            attempts.append(message.attempt)
            wrote(message)
            if message.attempt == 1:
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO follower VALUES (-1)")

    table = "CREATE TABLE follower (inbox bigint REFERENCES nats_inbox_inboxmessage (id) "
    await sync_to_async(execute)(f"{table} DEFERRABLE INITIALLY DEFERRED)")
    try:
        await stage.publish(8)
        async with running(Orders):
            await stage.everything_is_settled(Orders)
    finally:
        await sync_to_async(execute)("DROP TABLE follower")
    assert attempts == [1, 2]
    assert await effects() == {8: 1}


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


async def test_a_caught_database_error_that_broke_the_transaction_is_a_failed_attempt(
    stage: Stage,
) -> None:
    class Orders(stage.Pull):
        idempotent = True

        def handle_message(self, message: Any) -> None:
            wrote(message)
            if message.attempt == 1:
                try:
                    Receipt(number=None, thread="").save()
                except DatabaseError:
                    return
            with pytest.raises(DatabaseError), transaction.atomic():
                Receipt(number=None, thread="").save()

    await stage.publish(8)
    async with running(Orders):
        await stage.everything_is_settled(Orders)
    assert await effects() == {8: 1}


async def test_async_parts_of_the_handler_are_in_its_transaction(stage: Stage) -> None:
    class Handler(ConsumerHandler):
        @handle("*.created")
        async def created(self, message: Any) -> None:
            await Receipt.objects.acreate(number=int(message.data), thread="")
            if message.attempt == 1:
                raise ValueError("no")

    class Orders(stage.Pull):
        idempotent = True
        handler = Handler()

        def handle_message(self, message: Any) -> Any:
            return self.handler.handle(message)

    await stage.publish(8)
    async with running(Orders):
        await stage.everything_is_settled(Orders)
    assert await effects() == {8: 1}


async def test_a_message_without_a_method_is_retried_and_not_taken_for_handled(
    stage: Stage, rows: Any
) -> None:
    class Orders(stage.Pull):
        idempotent = True
        max_retries = 1
        handler = ConsumerHandler(["orders.shipped"])
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        def handle_message(self, message: Any) -> Any:
            return Ack() if message.attempt > 1 else self.handler.handle(message)

    await stage.publish(8)
    async with running(Orders) as orders:
        await stage.everything_is_settled(Orders)
        assert orders._consumption.counters()["retried"] == 1
    assert await sync_to_async(rows.count)() == 1


async def test_single_methods_of_a_handler_can_be_idempotent(stage: Stage, rows: Any) -> None:
    class Handler(ConsumerHandler):
        @handle("*.created")
        @idempotent
        def created(self, message: Any) -> Any:
            wrote(message)
            if message.attempt == 1:
                return Retry(0.01)
            raise Ack

        @handle("*.paid")
        @idempotent(using="default")
        def paid(self, message: Any) -> None:
            wrote(message)

    class Orders(stage.Pull):
        handler = Handler()

        async def handle_message(self, message: Any) -> Any:
            return await self.handler.handle(message)

    await stage.publish(8)
    await stage.publish(9, event="paid")
    async with running(Orders):
        await stage.everything_is_settled(Orders)
    assert await effects() == {8: 1, 9: 1}
    assert await sync_to_async(rows.count)() == 2


async def test_an_idempotent_method_of_an_idempotent_consumer_is_called(stage: Stage) -> None:
    class Handler(ConsumerHandler):
        @handle("*.created")
        @idempotent
        def created(self, message: Any) -> None:
            wrote(message)

    class Orders(stage.Pull):
        idempotent = True
        handler = Handler()

        def handle_message(self, message: Any) -> Any:
            return self.handler.handle(message)

    await stage.publish(8)
    async with running(Orders):
        await stage.everything_is_settled(Orders)
    assert await effects() == {8: 1}


async def test_an_identity_of_the_projects_own_tells_messages_apart(stage: Stage) -> None:
    class Orders(stage.Pull):
        idempotent = True

        def message_identity(self, message: Any) -> str:
            return str(int(message.data) % 2)

        def handle_message(self, message: Any) -> None:
            wrote(message)

    await stage.publish(*range(6))
    async with running(Orders):
        await stage.everything_is_settled(Orders)
    assert sorted(number % 2 for number in await effects()) == [0, 1]


async def test_a_consumer_does_not_start_without_the_table(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, rows: Any
) -> None:
    class Orders(stage.Pull):
        idempotent = True

        def handle_message(self, message: Any) -> None: ...

    monkeypatch.setattr(rows.model._meta, "db_table", "nowhere")
    with pytest.raises(ConfigurationError, match="migrate nats_inbox --database default"):
        async with running(Orders):
            pass


def test_an_async_method_cannot_be_idempotent() -> None:
    with pytest.raises(TypeError, match="no asynchronous transactions"):

        @idempotent
        async def created(self: Any, message: Any) -> None: ...


async def test_deliver_calls_an_idempotent_handler_in_its_transaction(stage: Stage) -> None:
    class Orders(stage.Pull):
        idempotent = True

        def handle_message(self, message: Any) -> Any:
            wrote(message)
            return Retry(5) if message.data == b"7" else None

    subject = f"{stage.stream}.paid"
    assert await adeliver(Orders, "7", subject=subject) == Retry(5)
    same = {"Nats-Msg-Id": "order-8"}
    for _ in range(2):
        assert await adeliver(Orders, "8", subject=subject, headers=same) == Ack()
    assert await effects() == {8: 1}


Handled = Callable[..., Awaitable[type[JetstreamPullConsumer]]]


@pytest.fixture
def handled(stage: Stage) -> Handled:
    """`await handled(1, 2)` publishes messages and has the consumer Orders handle them."""

    class Orders(stage.Pull):
        idempotent = True

        def handle_message(self, message: Any) -> None:
            wrote(message)

    async def handled(*numbers: int) -> type[JetstreamPullConsumer]:
        await stage.publish(*numbers)
        async with running(Orders):
            await stage.everything_is_settled(Orders)
        return Orders

    return handled


def output_of(*arguments: str) -> str:
    out = io.StringIO()
    call_command("nats_inbox", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def grow_old(rows: Any, days: int = 8) -> None:
    rows.update(handled_at=Now() - timedelta(days=days))


async def test_old_rows_of_settled_messages_are_deleted_and_no_others(
    stage: Stage, rows: Any, handled: Handled, settings: Settings
) -> None:
    await handled(1, 2)
    assert "deleted 0" in await sync_to_async(output_of)("clean")
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "inbox_retention": 0}
    # As if the worker had been killed between its commit and its ack, and stood since then.
    await sync_to_async(rows.filter(sequence=2).update)(sequence=3)
    assert "deleted 1" in await sync_to_async(output_of)("clean")
    await handled(3)
    assert await effects() == {1: 1, 2: 1, 3: 1}
    assert "deleted 2" in await sync_to_async(output_of)("clean")


async def test_rows_of_a_stream_that_was_recreated_are_deleted_although_it_is_shorter(
    stage: Stage, rows: Any, handled: Handled
) -> None:
    await handled(1, 2, 3)
    await stage.jetstream.delete_stream(stage.stream)
    await stage.jetstream.add_stream(name=stage.stream, subjects=[f"{stage.stream}.>"])
    await sync_to_async(grow_old)(rows)
    await handled(4)
    assert "deleted 3" in await sync_to_async(output_of)("clean")


async def test_rows_stay_where_the_server_does_not_know_the_durable(
    stage: Stage, rows: Any, handled: Handled
) -> None:
    await handled(1)
    await stage.jetstream.delete_consumer(stage.stream, "Orders")
    await sync_to_async(grow_old)(rows)
    assert "deleted 0" in await sync_to_async(output_of)("clean")


async def test_rows_stay_while_no_server_can_be_asked(
    stage: Stage, rows: Any, handled: Handled, settings: Settings
) -> None:
    await handled(1)
    await sync_to_async(grow_old)(rows)
    settings.NATS_CONSUMER = {"connect_args": {"servers": "127.0.0.1:1", "connect_timeout": 0.2}}
    with pytest.raises(CommandError, match="only the server knows which messages are settled"):
        await sync_to_async(output_of)("clean")
    assert await sync_to_async(rows.count)() == 1


async def test_status_counts_and_forget_lets_messages_be_handled_again(
    stage: Stage, rows: Any, handled: Handled
) -> None:
    await handled(1, 2)
    printed = await sync_to_async(output_of)("status")
    assert f"2 messages of {stage.stream} handled by Orders" in printed
    identity = (await sync_to_async(rows.first)()).identity
    one = ["forget", "--consumer", "Orders", "--identity", identity]
    with pytest.raises(CommandError, match="To forget 1, add --yes"):
        await sync_to_async(output_of)(*one)
    assert "forgot 1" in await sync_to_async(output_of)(*one, "--yes")
    await sync_to_async(grow_old)(rows, days=1)
    recent = ["forget", "--consumer", "Orders", "--newer-than", "2h", "--yes"]
    assert "forgot 0" in await sync_to_async(output_of)(*recent)


def test_the_worker_cleans_by_and_by_whatever_is_raised(
    rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nats_consumer.contrib.inbox import clean

    cleaned: list[str] = []
    again = threading.Event()
    errors = [DatabaseError("away"), InterfaceError("connection already closed"), KeyError("bug")]

    def note(using: str, stopping: threading.Event) -> int:
        cleaned.append(using)
        if errors:
            raise errors.pop()
        again.set()
        return 0

    monkeypatch.setattr(clean, "clean", note)
    monkeypatch.setattr(clean, "_FIRST_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(clean, "_EVERY_SECONDS", 0.01)
    with clean.cleaning():
        assert again.wait(20)
    assert set(cleaned) == {"default"}


def test_a_test_sees_that_a_second_delivery_has_no_effect(db: None) -> None:
    class Orders(JetstreamPullConsumer):
        stream_name = "orders"
        filter_subject = "orders.paid"
        idempotent = True

        def handle_message(self, message: Any) -> None:
            wrote(message)

    for _ in range(2):
        deliver(Orders, "8", headers={"Nats-Msg-Id": "order-8"})
    assert Receipt.objects.count() == 1


CONSUMERS = """
from nats_consumer import JetstreamPullConsumer

class Orders(JetstreamPullConsumer):
    stream_name = "{stream}"
    filter_subject = "{stream}.paid"
    idempotent = True

    def handle_message(self, message):
        # One write: the log writes to the same pipe.
        print(f"handled {{message.identity}}")
"""
INSTALLED = """
INSTALLED_APPS += ["nats_consumer.contrib.inbox"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {name!r}}}}}
"""


async def test_a_worker_handles_once_and_ends_in_order(
    stage: Stage, make_project: Callable[..., Project], tmp_path: Path
) -> None:
    project = make_project(CONSUMERS.format(stream=stage.stream))
    settings = (project.folder / "settings.py").read_text()
    project.write("settings.py", settings + INSTALLED.format(name=str(tmp_path / "shop.sqlite3")))
    untaught = project.consume()
    assert untaught.finish() == 1
    assert "Run `manage.py migrate nats_inbox --database default`" in untaught.output
    assert project.run("manage.py", "migrate").finish() == 0
    await forget_ids_soon(stage)
    await publish(stage, 8, "order-8")
    await publish_again(stage, 8, "order-8")
    await publish(stage, 9, "order-9")
    worker = project.consume()
    worker.wait_for("handled order-9")
    durable = stage.server.consumer
    await becomes_true(lambda: durable(stage.stream, "Orders")["num_ack_pending"] == 0)
    worker.interrupt()
    assert worker.finish() == 0, worker.output
    assert len(worker.lines_with("handled order-8")) == 1
    assert "Traceback" not in worker.output
