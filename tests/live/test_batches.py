"""Consumers that handle several messages with one call."""

import asyncio
import logging
import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import msgspec
import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, transaction

from nats_consumer import Ack, DeadLetter, Drop, ErrorAckBehavior, Message, Retry, _native
from nats_consumer.connect.log import LogPump
from nats_consumer.exceptions import InvalidPayload, MessageAlreadySettled, SettledTooEarly
from nats_consumer.run.batches import Batches
from tests.live.support.project import Project
from tests.live.support.stage import Stage, running
from tests.project.orders.models import Receipt
from tests.waiting import becomes_true, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.django_db(transaction=True)]

BOTH = pytest.mark.parametrize("how", ["def", "async"])
KINDS = pytest.mark.parametrize("kind", ["Pull", "Push"])


@pytest.fixture(autouse=True)
def engine_logs() -> Iterator[None]:
    """Carry the engine's log to Python, as under the command."""
    with LogPump(_native.take_logs):
        yield


class Paid(msgspec.Struct):
    id: int


@contextmanager
def gate() -> Iterator[threading.Event]:
    """An event that a handler may wait for; set at the end, whatever happens."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


def batches(
    base: Any, how: str, work: Callable[[list[Message]], Any], **attributes: Any
) -> tuple[Any, list[list[int]]]:
    """A consumer called Rows that does `work` with each batch, and a list of the numbers in each
    of its calls."""
    calls: list[list[int]] = []

    def handle(self: Any, messages: list[Message]) -> Any:
        calls.append(numbers(messages))
        return work(messages)

    async def ahandle(self: Any, messages: list[Message]) -> Any:
        return handle(self, messages)

    namespace = {
        "max_batch": 100,
        "max_batch_wait": 0.3,
        "handle_batch": handle if how == "def" else ahandle,
        **attributes,
    }
    return type("Rows", (base,), namespace), calls


def numbers(messages: list[Message]) -> list[int]:
    return [int(message.data) for message in messages]


async def dead_letters(stage: Stage) -> list[bytes]:
    info = await stage.jetstream.stream_info(f"{stage.stream}-dlq")
    found = range(1, info.state.last_seq + 1)
    return [(await stage.jetstream.get_msg(f"{stage.stream}-dlq", seq)).data for seq in found]


@KINDS
@BOTH
async def test_messages_gather_until_a_batch_is_full_or_the_first_has_waited(
    stage: Stage, how: str, kind: str
) -> None:
    attributes = {"max_ack_pending": 1000} if kind == "Push" else {}
    base = getattr(stage, kind)
    rows_class, calls = batches(base, how, lambda _: None, max_batch_wait=3.0, **attributes)
    await stage.publish(*range(250))
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    assert [len(call) for call in calls] == [100, 100, 50]
    assert [number for call in calls for number in call] == list(range(250))


async def test_bytes_end_a_batch_too(stage: Stage) -> None:
    rows_class, calls = batches(stage.Pull, "def", lambda _: None, max_batch_bytes=5_000)
    await stage.publish(*[str(number).zfill(1_000) for number in range(8)])
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    assert [len(call) for call in calls] == [4, 4]


@BOTH
async def test_one_poison_message_of_a_hundred_is_found_and_the_others_are_done(
    stage: Stage, how: str
) -> None:
    done: list[int] = []

    def insert(messages: list[Message]) -> None:
        if 41 in numbers(messages):
            raise ValueError("41")
        done.extend(numbers(messages))

    rows_class, calls = batches(
        stage.Pull,
        how,
        insert,
        max_batch_wait=3.0,
        max_retries=0,
        handle_error_ack_behavior=ErrorAckBehavior.DEAD_LETTER,
    )
    await stage.publish(*range(100))
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    assert sorted(done) == [number for number in range(100) if number != 41]
    assert await dead_letters(stage) == [b"41"]
    assert len(calls) <= 16


@BOTH
async def test_an_error_of_the_surroundings_is_one_call_and_makes_no_dead_letter(
    stage: Stage, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    is_away = threading.Event()
    is_away.set()

    def insert(messages: list[Message]) -> None:
        if is_away.is_set():
            is_away.clear()
            raise OperationalError("the database is away")

    rows_class, calls = batches(
        stage.Pull,
        how,
        insert,
        max_batch_wait=3.0,
        max_retries=0,  # the first attempt is the last one
        initial_retry_delay=1.0,
        handle_error_ack_behavior=ErrorAckBehavior.DEAD_LETTER,
    )
    await stage.publish(*range(100))
    async with running(rows_class) as rows:
        await becomes_true(lambda: rows._consumption.counters()["retried"] == 100)
        assert len(calls[0]) == 100
        line = "Rows: a batch of 100 messages failed with OperationalError"
        await becomes_true(lambda: line in caplog.text)
        await stage.everything_is_settled(rows_class)
        counters = rows._consumption.counters()
    assert (counters["succeeded"], counters["dead_lettered"]) == (100, 0)


async def test_a_message_that_causes_such_an_error_itself_does_not_hold_up_its_neighbours(
    stage: Stage,
) -> None:
    done: set[int] = set()

    def insert(messages: list[Message]) -> None:
        if 7 in numbers(messages):
            raise OperationalError("statement timeout")
        done.update(numbers(messages))

    rows_class, _ = batches(
        stage.Pull,
        "def",
        insert,
        max_retries=1,
        handle_error_ack_behavior=ErrorAckBehavior.DEAD_LETTER,
    )
    await stage.publish(*range(20))
    async with running(rows_class):
        await becomes_true(lambda: len(done) == 19)
        await stage.everything_is_settled(rows_class)
    assert await dead_letters(stage) == [b"7"]


@BOTH
async def test_what_gathers_at_a_shutdown_is_handed_back_at_once_and_not_handled(
    stage: Stage, how: str
) -> None:
    rows_class, calls = batches(stage.Pull, how, lambda _: None, max_batch_wait=60.0)
    await stage.publish(*range(10))
    async with running(rows_class) as rows:
        await becomes_true(lambda: rows._consumption.counters()["in_flight"] == 10)
        loop = asyncio.get_running_loop()
        began = loop.time()
    assert loop.time() - began < 5, "nobody waits for the batch"
    assert calls == []
    rows_class.max_batch_wait = 0.1
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    assert [sorted(call) for call in calls] == [list(range(10))], "at once, not after ack_wait"


async def test_leases_outlast_ack_wait_while_messages_gather_and_run(stage: Stage) -> None:
    def insert(_: list[Message]) -> None:
        release.wait(20)

    with gate() as release:
        rows_class, calls = batches(stage.Pull, "def", insert, ack_wait=0.5, max_batch_wait=1.5)
        await stage.publish(*range(10))
        async with running(rows_class) as rows:
            await becomes_true(lambda: len(calls) == 1)
            await stage.publish(*range(10, 20))
            await becomes_true(lambda: rows._consumption.counters()["in_flight"] == 20)
            # Three times ack_wait, while one batch runs and the next one gathers.
            assert not await asyncio.to_thread(release.wait, 1.5)
            release.set()
            await stage.everything_is_settled(rows_class)
            assert rows._consumption.counters()["received"] == 20, "none was delivered again"
    assert [sorted(call) for call in calls] == [list(range(10)), list(range(10, 20))]


@BOTH
async def test_each_message_may_have_its_own_outcome(stage: Stage, how: str) -> None:
    seen: Counter[int] = Counter()
    refused: list[Exception] = []

    def insert(messages: list[Message]) -> Any:
        seen.update(numbers(messages))
        by_number = {int(message.data): message for message in messages}
        if 5 in by_number and by_number[5].attempt == 1:
            by_number[5].nak()
        chosen = {
            1: Retry(after=0.05) if seen[1] == 1 else Ack(),
            2: DeadLetter("no such shop"),
            3: Drop("a test"),
            4: ValueError("4") if seen[4] == 1 else None,
        }
        return {by_number[each]: ending for each, ending in chosen.items() if each in by_number}

    rows_class, calls = batches(stage.Pull, how, insert)
    await stage.publish(*range(10))
    async with running(rows_class) as rows:
        await stage.everything_is_settled(rows_class)
        found = rows._consumption.counters()
    assert refused == []
    assert seen == Counter({**dict.fromkeys(range(10), 1), 1: 2, 4: 2, 5: 2})
    assert await dead_letters(stage) == [b"2"]
    assert (found["dropped"], found["failed"], found["dead_lettered"]) == (1, 1, 1)
    assert len(calls[0]) == 10


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise AttributeError("it was not initialised")


# Python is told of the `__str__` that failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@BOTH
async def test_an_error_without_a_text_does_not_leave_the_batch_unsettled(
    stage: Stage, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    def work(messages: list[Message]) -> None:
        if 2 in numbers(messages):
            raise UnprintableError

    rows_class, calls = batches(
        stage.Pull,
        how,
        work,
        max_retries=0,
        handle_error_ack_behavior=ErrorAckBehavior.DEAD_LETTER,
    )
    await stage.publish(*range(4))
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    assert await dead_letters(stage) == [b"2"]
    assert sorted(number for call in calls if len(call) == 1 for number in call) == [2, 3]
    assert "UnprintableError: <unprintable UnprintableError object>" in caplog.text


@BOTH
async def test_a_bug_of_ours_does_not_leave_a_batch_unsettled(
    stage: Stage,
    how: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows_class, calls = batches(stage.Pull, how, lambda _: None, initial_retry_delay=0.01)
    settle, failures = Batches._settle, [KeyError("a bug")]

    def fails_once(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return settle(*arguments)

    monkeypatch.setattr(Batches, "_settle", fails_once)
    await stage.publish(*range(4))
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    assert calls[0] == [0, 1, 2, 3]
    assert sorted(number for call in calls[1:] for number in call) == [0, 1, 2, 3]
    assert "This is a bug" in caplog.text


@pytest.mark.parametrize("raises", [True, False])
@BOTH
async def test_an_outcome_for_the_batch_is_that_of_each_message(
    stage: Stage, how: str, raises: bool
) -> None:
    def insert(messages: list[Message]) -> Any:
        if messages[0].attempt > 1:
            return None
        if raises:
            raise Retry(after=0.05)
        return Retry(after=0.05)

    rows_class, calls = batches(stage.Pull, how, insert)
    await stage.publish(*range(10))
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    assert sorted(number for call in calls for number in call) == sorted([*range(10)] * 2)
    assert len(calls[0]) == 10


@pytest.mark.parametrize("outcome", [DeadLetter("no such shop"), Drop("a test")])
@BOTH
async def test_a_final_outcome_that_is_raised_is_that_of_the_message_which_fails_alone(
    stage: Stage, how: str, outcome: Any
) -> None:
    done: list[int] = []

    def insert(messages: list[Message]) -> None:
        if 3 in numbers(messages):
            raise outcome
        done.extend(numbers(messages))

    rows_class, _ = batches(stage.Pull, how, insert)
    await stage.publish(*range(10))
    async with running(rows_class) as rows:
        await stage.everything_is_settled(rows_class)
        found = rows._consumption.counters()
    assert sorted(done) == [number for number in range(10) if number != 3]
    assert found["dead_lettered"] + found["dropped"] == 1
    assert found["failed"] == 0


@BOTH
async def test_a_wrong_answer_is_a_failure_with_a_remedy(
    stage: Stage, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows_class, calls = batches(
        stage.Pull,
        how,
        lambda messages: [True] if messages[0].attempt == 1 else None,
    )
    await stage.publish(1)
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    assert calls == [[1], [1]]
    assert "Return nothing, an outcome for all messages, or a dict" in caplog.text


@BOTH
async def test_payloads_are_decoded_and_what_cannot_be_is_not_in_the_batch(
    stage: Stage, how: str
) -> None:
    calls: list[tuple[list[Paid], list[int]]] = []
    last: list[tuple[bytes, str, int]] = []

    def handle(self: Any, orders: list[Paid], messages: list[Message]) -> None:
        calls.append((orders, [message.attempt for message in messages]))

    async def ahandle(self: Any, orders: list[Paid], messages: list[Message]) -> None:
        handle(self, orders, messages)

    class Rows(stage.Pull):
        max_batch = 10
        max_batch_wait = 0.2
        handle_batch = handle if how == "def" else ahandle

        def handle_error(self, message: Message, error: Exception, attempt: int) -> None:
            last.append((message.data, type(error).__name__, attempt))

    await stage.publish(b'{"id": 1}', b'{"id": "x"}', b'{"id": 3}')
    async with running(Rows):
        await stage.everything_is_settled(Rows)
    assert calls == [([Paid(1), Paid(3)], [1, 1])]
    assert await dead_letters(stage) == [b'{"id": "x"}']
    assert last == [(b'{"id": "x"}', InvalidPayload.__name__, 1)]


async def test_an_async_batch_that_exceeds_its_time_is_cancelled_and_comes_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[list[int]] = []

    class Rows(stage.Pull):
        max_batch = 10
        max_batch_wait = 0.2
        handler_timeout = 0.2
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.DEAD_LETTER

        async def handle_batch(self, messages: list[Message]) -> None:
            calls.append(numbers(messages))
            if len(calls) == 1:
                await asyncio.Event().wait()

    await stage.publish(*range(5))
    async with running(Rows) as rows:
        await stage.everything_is_settled(Rows)
        assert rows._consumption.counters()["dead_lettered"] == 0
    assert [sorted(call) for call in calls] == [list(range(5))] * 2, "a timeout is not split"
    assert "failed with TimeoutError: timed out after 0.2 s" in caplog.text


@pytest.mark.parametrize("end", [None, LookupError("cut off"), Ack()], ids=repr)
async def test_an_async_batch_that_swallows_its_timeout_is_not_acknowledged(
    stage: Stage, end: BaseException | None
) -> None:
    calls: list[list[int]] = []

    class Rows(stage.Pull):
        max_batch = 10
        max_batch_wait = 0.2
        handler_timeout = 0.2
        initial_retry_delay = 0.1

        async def handle_batch(self, messages: list[Message]) -> None:
            calls.append(numbers(messages))
            if len(calls) > 1:
                return
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            if end is not None:
                raise end

    await stage.publish(*range(5))
    async with running(Rows):
        await stage.everything_is_settled(Rows)
    assert [sorted(call) for call in calls] == [list(range(5))] * 2


async def test_a_blocking_batch_that_exceeds_its_time_loses_its_messages(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    refused: list[str] = []

    def insert(messages: list[Message]) -> None:
        if len(calls) > 1:
            return
        release.wait(20)
        try:
            messages[0].ack()
        except MessageAlreadySettled as error:
            refused.append(type(error).__name__)

    with gate() as release:
        rows_class, calls = batches(stage.Pull, "def", insert, handler_timeout=0.3, concurrency=2)
        await stage.publish(*range(5))
        async with running(rows_class) as rows:
            await stage.everything_is_settled(rows_class)
            assert [sorted(call) for call in calls] == [list(range(5))] * 2
            assert rows._consumption.counters()["in_flight"] == 5, "its places are occupied"
            await becomes_true(lambda: "A batch of 5 messages timed out" in caplog.text)
            release.set()
            await becomes_true(lambda: rows._consumption.counters()["in_flight"] == 0)
            await becomes_true(lambda: "beyond handler_timeout" in caplog.text)
    assert refused == ["MessageAlreadySettled"]


async def test_a_batch_that_is_cancelled_at_the_end_of_a_drain_is_handed_back(
    stage: Stage,
) -> None:
    calls: list[list[int]] = []

    class Rows(stage.Pull):
        max_batch = 10
        max_batch_wait = 0.1

        async def handle_batch(self, messages: list[Message]) -> None:
            calls.append(numbers(messages))
            if len(calls) == 1:
                await asyncio.Event().wait()

    await stage.publish(*range(5))
    async with running(Rows, drain=0.2):
        await becomes_true(lambda: len(calls) == 1)
    async with running(Rows):
        await stage.everything_is_settled(Rows)
    assert [sorted(each) for each in calls] == [list(range(5)), list(range(5))]


async def test_the_metrics_count_messages(stage: Stage) -> None:
    rows_class, _ = batches(stage.Pull, "def", lambda _: None)
    await stage.publish(*range(10))
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    text = _native.metrics_text()
    handled = [line for line in text.splitlines() if line.startswith("nats_consumer_handler_")]
    durations = [line for line in handled if "_count{" in line and f'"{stage.stream}"' in line]
    durations = durations or [line for line in handled if "_count{" in line and '"Rows"' in line]
    assert durations, handled


@pytest.fixture
def rows(transactional_db: None) -> Any:
    """The model of the inbox."""
    from nats_consumer.contrib.inbox.models import InboxMessage

    return InboxMessage.objects


async def effects() -> Counter[int]:
    return Counter(await sync_to_async(list)(Receipt.objects.values_list("number", flat=True)))


def write(messages: list[Message]) -> None:
    Receipt.objects.bulk_create([Receipt(number=int(each.data)) for each in messages])


async def test_an_idempotent_batch_leaves_out_what_was_handled_before(
    stage: Stage, rows: Any
) -> None:
    rows_class, calls = batches(stage.Pull, "def", write, idempotent=True)
    config = (await stage.jetstream.stream_info(stage.stream)).config
    await stage.jetstream.update_stream(config, duplicate_window=0.1)

    async def publish(number: int) -> bool:
        headers = {"Nats-Msg-Id": f"order-{number}"}
        subject = f"{stage.stream}.paid"
        ack = await stage.jetstream.publish(subject, str(number).encode(), headers=headers)
        return not ack.duplicate

    async with running(rows_class):
        for number in (1, 2, 3):
            await publish(number)
        await stage.everything_is_settled(rows_class)
        for number in (2, 3, 4):
            while not await publish(number):
                pass
        await stage.everything_is_settled(rows_class)
    assert await effects() == Counter([1, 2, 3, 4])
    assert [number for call in calls for number in call] == [1, 2, 3, 4]
    assert await sync_to_async(rows.count)() == 4


async def test_the_halves_of_an_idempotent_batch_are_rolled_back_and_repeated(
    stage: Stage, rows: Any
) -> None:
    def insert(messages: list[Message]) -> None:
        write(messages)
        if 7 in numbers(messages):
            raise ValueError("7")

    rows_class, _ = batches(
        stage.Pull,
        "def",
        insert,
        idempotent=True,
        max_retries=0,
        handle_error_ack_behavior=ErrorAckBehavior.DEAD_LETTER,
    )
    await stage.publish(*range(20))
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    assert await effects() == Counter(number for number in range(20) if number != 7)
    assert await sync_to_async(rows.count)() == 19
    assert await dead_letters(stage) == [b"7"]


async def test_a_message_that_an_idempotent_batch_wants_again_is_not_noted_as_handled(
    stage: Stage, rows: Any
) -> None:
    early: list[str] = []

    def insert(messages: list[Message]) -> Any:
        again = [each for each in messages if int(each.data) == 1 and each.attempt == 1]
        write([each for each in messages if each not in again])
        try:
            messages[0].ack()
        except SettledTooEarly as error:
            early.append(type(error).__name__)
        return dict.fromkeys(again, Retry(after=0.05))

    rows_class, calls = batches(stage.Pull, "def", insert, idempotent=True)
    await stage.publish(*range(3))
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    assert calls == [[0, 1, 2], [1]]
    assert await effects() == Counter([0, 1, 2])
    assert set(early) == {"SettledTooEarly"}


async def test_a_transaction_of_the_handlers_own_is_rolled_back_with_the_batch(
    stage: Stage,
) -> None:
    def insert(messages: list[Message]) -> None:
        with transaction.atomic():
            write(messages)
            if 3 in numbers(messages) and len(messages) > 1:
                raise ValueError("not in company")

    rows_class, _ = batches(stage.Pull, "def", insert)
    await stage.publish(*range(8))
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    assert await effects() == Counter(range(8))


KILLED = """
import os, signal
from nats_consumer import JetstreamPullConsumer
from shop.models import Row

class Rows(JetstreamPullConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"
    idempotent = True
    max_batch = 20
    max_batch_wait = 0.2
    ack_wait = 0.5
    max_retries = 10

    def handle_batch(self, messages):
        Row.objects.bulk_create([Row(number=int(each.data)) for each in messages])
        if 25 in [int(each.data) for each in messages] and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
"""
MODELS = """
from django.db import models

class Row(models.Model):
    number = models.IntegerField()

    class Meta:
        app_label = "shop"
"""


def with_database(project: Project) -> None:
    project.write("shop/models.py", MODELS)
    project.write(
        "database.py",
        """
        from settings import *
        INSTALLED_APPS = ["nats_consumer", "nats_consumer.contrib.inbox", "shop"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3",
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20}}}
        """,
    )
    migrate = project.run(
        "-m", "django", "migrate", "--run-syncdb", DJANGO_SETTINGS_MODULE="database", PYTHONPATH="."
    )
    migrate.finish()


async def test_a_worker_that_is_killed_in_a_batch_writes_each_row_once(
    stage: Stage, make_project: Callable[[str], Project]
) -> None:
    project = make_project(KILLED.format(stream=stage.stream))
    project.write(
        "manage.py", (project.folder / "manage.py").read_text().replace('"settings"', '"database"')
    )
    await asyncio.to_thread(with_database, project)
    await stage.publish(*range(50))

    def rows_written() -> list[int]:
        with closing(sqlite3.connect(project.folder / "shop.sqlite3")) as database:
            return sorted(number for (number,) in database.execute("SELECT number FROM shop_row"))

    killed = project.consume()
    await asyncio.to_thread(lambda: eventually(lambda: killed.has_ended))
    assert (project.folder / "killed").exists()
    assert len(rows_written()) < 50
    project.consume()
    await asyncio.to_thread(lambda: eventually(lambda: len(rows_written()) >= 50))
    server = stage.server
    await becomes_true(lambda: server.consumer(stage.stream, "Rows")["num_ack_pending"] == 0)
    assert rows_written() == list(range(50))


async def test_a_batch_is_told_in_the_log_when_it_is_split(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    def insert(messages: list[Message]) -> None:
        if len(messages) > 1:
            raise ValueError("too many")

    rows_class, _ = batches(stage.Pull, "def", insert)
    await stage.publish(*range(4))
    async with running(rows_class):
        await stage.everything_is_settled(rows_class)
    lines = [record.getMessage() for record in caplog.records if "each half" in record.getMessage()]
    assert len(lines) == 1, "for the whole batch, and not for each half"
    assert lines[0].startswith("Rows: a batch of 4 messages failed with ValueError: too many")


HANGS = """
import os, time
from nats_consumer import JetstreamPullConsumer

class Rows(JetstreamPullConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"
    max_batch = 2
    max_batch_wait = 0.1

    {how} handle_batch(self, messages):
        while b"hangs" in [each.data for each in messages] and not os.path.exists("go"):
            time.sleep(0.05)
        print("handled", *[each.data.decode() for each in messages], flush=True)
"""


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("def", "Rows: none of its 1 threads has been free for"),
        ("async def", "has blocked the event loop for"),
    ],
)
async def test_a_batch_that_hangs_is_named_and_another_worker_takes_what_gathers(
    stage: Stage, make_project: Callable[[str], Project], how: str, text: str
) -> None:
    project = make_project(HANGS.format(stream=stage.stream, how=how))
    first = project.consume()
    await asyncio.to_thread(first.wait_for, "Rows: consuming")
    await stage.publish("hangs", "too", "one", "two")
    said = await asyncio.to_thread(first.wait_for, text)
    assert re.search(r"message 1 of .* shop/consumers\.py:\d+ in handle_batch", said)
    second = project.consume()
    await asyncio.to_thread(second.wait_for, "handled one two")
    project.write("go", "")
    await asyncio.to_thread(first.wait_for, "handled hangs too")


POISON = """
import os, signal
from nats_consumer import ErrorAckBehavior, JetstreamPullConsumer

class Rows(JetstreamPullConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"
    max_batch = 20
    max_batch_wait = 0.2
    ack_wait = 1.0
    max_retries = 0
    handle_error_ack_behavior = ErrorAckBehavior.DEAD_LETTER

    def handle_batch(self, messages):
        if b"7" in [each.data for each in messages]:
            os.kill(os.getpid(), signal.SIGKILL)
        with open("done", "a") as done:
            done.write("".join(each.data.decode() + "\\n" for each in messages))
"""


async def test_a_message_that_kills_its_worker_is_found_among_its_neighbours(
    stage: Stage, make_project: Callable[[str], Project]
) -> None:
    project = make_project(POISON.format(stream=stage.stream))
    await stage.publish(*range(20))

    def run_until_killed() -> bool:
        worker = project.consume()
        return eventually(lambda: worker.has_ended or is_done(), timeout=60)

    def is_done() -> bool:
        durables = stage.server.stream(stage.stream).get("consumer_detail", [])
        return any(each["ack_floor"]["stream_seq"] == 20 for each in durables)

    for _ in range(10):
        await asyncio.to_thread(run_until_killed)
        if is_done():
            break
    assert await dead_letters(stage) == [b"7"]
    done = (project.folder / "done").read_text().split()
    assert Counter(done) == Counter(str(number) for number in range(20) if number != 7)
