"""The outbox: rows in the caller's transaction, and the relay that publishes them."""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from nats_consumer import (
    Outgoing,
    event,
    get_nats_client,
    metrics,
    publish,
    publish_many_on_commit,
    publish_on_commit,
)
from nats_consumer.contrib.outbox import write
from nats_consumer.contrib.outbox.lease import Lease
from nats_consumer.contrib.outbox.metrics import Metrics
from nats_consumer.declare import registry
from nats_consumer.exceptions import (
    ConfigurationError,
    Disconnected,
    NoServers,
    NoStreamResponse,
    OutboxError,
    PayloadTooLarge,
)
from nats_consumer.testing import capture_published
from tests.live.support.project import Project
from tests.live.support.publishers import own_publishers
from tests.live.support.streams import add_stream
from tests.servers import NatsServer
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def outbox(transactional_db: None, nats_server: NatsServer, settings: Settings) -> Iterator[Any]:
    """The models of the app, in use."""
    from nats_consumer.contrib.outbox import models

    settings.NATS_CONSUMER = {"connect_args": {"servers": nats_server.url}}
    with own_publishers():
        yield models


@pytest.fixture
def stream(outbox: Any, fresh: Callable[[str], str]) -> str:
    """The name of a stream that has all subjects below it."""
    name = fresh("orders")
    add_stream(name)
    return name


def stored(stream: str) -> list[tuple[str, bytes]]:
    """Subject and payload of everything in the stream."""

    async def read() -> list[tuple[str, bytes]]:
        async with await get_nats_client() as client:
            js = client.jetstream()
            last = (await js.stream_info(stream)).state.last_seq
            messages = [await js.get_msg(stream, seq) for seq in range(1, last + 1)]
            return [(each.subject or "", each.data or b"") for each in messages]

    return asyncio.run(read())


def relay_all() -> None:
    call_command("nats_outbox", "relay", "--once", stdout=StringIO())


def outbox_metrics() -> dict[str, float]:
    """The metrics of the outbox of the database `default`, by the end of their names."""
    samples = re.findall(r'nats_consumer_outbox_(\w+)\{database="default"\} (\S+)', metrics.text())
    return {name: float(value) for name, value in samples}


def output_of(*arguments: str) -> str:
    out = StringIO()
    call_command("nats_outbox", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def test_a_message_of_a_transaction_that_is_rolled_back_is_never_published(stream: str) -> None:
    for number in range(100):
        try:
            with transaction.atomic():
                publish_on_commit(f"{stream}.created", {"number": number})
                if number % 5 == 0:
                    raise RuntimeError
        except RuntimeError:
            pass
    relay_all()
    expected = [b'{"number": %d}' % number for number in range(100) if number % 5]
    assert [data for _, data in stored(stream)] == expected


def test_a_row_keeps_headers_and_the_message_id(stream: str, outbox: Any) -> None:
    publish_on_commit(f"{stream}.a", b"\x00", headers={"Source": "shop"}, msg_id=7)
    [row] = outbox.OutboxMessage.objects.all()
    assert row.msg_id == "7"
    relay_all()
    publish_on_commit(f"{stream}.a", b"again", msg_id=7)
    relay_all()
    assert stored(stream) == [(f"{stream}.a", b"\x00")]
    assert not outbox.OutboxMessage.objects.exists()


def test_many_messages_are_rows_in_their_order(stream: str, outbox: Any) -> None:
    messages = [Outgoing(f"{stream}.n", str(n), key="k", msg_id=f"n-{n}") for n in range(250)]
    with transaction.atomic():
        publish_many_on_commit([*messages, (f"{stream}.last", b"end")])
    assert outbox.OutboxMessage.objects.filter(key="k").count() == 250
    relay_all()
    assert [data for _, data in stored(stream)] == [*(b"%d" % n for n in range(250)), b"end"]


def test_an_event_becomes_a_row_with_its_subject_and_its_type(stream: str, outbox: Any) -> None:
    @event(stream + ".{number}.paid")
    @dataclass
    class Paid:
        number: int

    with transaction.atomic():
        publish_on_commit(Paid(7))
        publish_many_on_commit([Paid(8), (Paid, Paid(9))])
        publish_on_commit(stream + ".{number}.sent", b"", number=7)
    headers = [str(each.headers) for each in outbox.OutboxMessage.objects.order_by("id")]
    assert ["Paid; version=1" in each for each in headers] == [True, True, True, False]
    relay_all()
    assert stored(stream) == [
        (f"{stream}.7.paid", b'{"number":7}'),
        (f"{stream}.8.paid", b'{"number":8}'),
        (f"{stream}.9.paid", b'{"number":9}'),
        (f"{stream}.7.sent", b""),
    ]


def test_a_refused_message_holds_its_key_and_no_other(stream: str, outbox: Any) -> None:
    publish_on_commit("nobody.has.this", b"1", key="k1")
    relay_all()
    publish_on_commit(f"{stream}.a", b"behind", key="k1")
    publish_on_commit(f"{stream}.a", b"other", key="k2")
    relay_all()
    assert [data for _, data in stored(stream)] == [b"other"]
    assert "1 refused" in output_of("status")
    listed = output_of("list", "--stuck")
    assert "nobody.has.this (key k1), refused 1 times" in listed
    assert "behind" not in listed


def test_a_refused_message_is_tried_again_and_its_followers_come_after_it(
    stream: str, outbox: Any, fresh: Callable[[str], str]
) -> None:
    late = fresh("late")
    publish_on_commit(f"{late}.a", b"first", key="k")
    relay_all()
    publish_on_commit(f"{late}.a", b"second", key="k")
    add_stream(late)
    [refused] = outbox.OutboxMessage.objects.filter(attempts=1)
    assert "1 are tried again" in output_of("retry", str(refused.pk))
    relay_all()
    assert [data for _, data in stored(late)] == [b"first", b"second"]


def test_a_full_stream_holds_one_key_until_there_is_room(
    stream: str, outbox: Any, fresh: Callable[[str], str]
) -> None:
    from nats_consumer.contrib.outbox.lag import lag

    full = fresh("full")
    add_stream(full, max_msgs=1, discard="new")
    for subject, data, key in [(full, b"1", "k"), (full, b"2", "k"), (stream, b"x", "x")]:
        publish_on_commit(f"{subject}.a", data, key=key)
    relay_all()
    publish_on_commit(f"{full}.a", b"3", key="k")
    relay_all()
    assert ([data for _, data in stored(full)], lag().stuck) == ([b"1"], 1)
    assert [data for _, data in stored(stream)] == [b"x"]
    add_room(full)
    [refused] = outbox.OutboxMessage.objects.filter(attempts__gt=0)
    output_of("retry", str(refused.pk))
    relay_all()
    assert [data for _, data in stored(full)] == [b"1", b"2", b"3"]
    assert lag().rows == 0


def add_room(stream: str) -> None:
    async def add() -> None:
        async with await get_nats_client() as client:
            js = client.jetstream()
            config = (await js.stream_info(stream)).config
            await js.update_stream(config, max_msgs=10)

    asyncio.run(add())


def test_followers_of_a_refused_message_in_a_later_batch_do_not_pass_those_of_its_own(
    stream: str, outbox: Any, fresh: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nats_consumer.contrib.outbox import relay

    late = fresh("late")
    publish_on_commit(f"{late}.a", b"1", key="k")
    relay_all()
    add_stream(late)
    for subject, data, key in [(late, b"2", "k"), (stream, b"x", "x"), (late, b"3", "k")]:
        publish_on_commit(f"{subject}.a", data, key=key)
    outbox.OutboxMessage.objects.filter(attempts=1).update(next_attempt_at=Now())
    monkeypatch.setattr(relay, "BATCH", 3)
    # As if the second after which it reads from the start never came.
    monkeypatch.setattr(relay, "_FROM_THE_START_SECONDS", 3600.0)
    ours = relay.Relay("default")
    while ours.relay_batch():
        pass
    ours.end()
    assert [data for _, data in stored(late)] == [b"1", b"2", b"3"]


@pytest.fixture
def silence(outbox: Any) -> Iterator[str]:
    """A subject that no stream has, and that somebody hears without an answer."""
    listening, ended = threading.Event(), threading.Event()

    async def ignore(_: object) -> None:
        pass

    async def listen() -> None:
        async with await get_nats_client() as client:
            await client.subscribe("silence.>", cb=ignore)
            await client.flush()
            listening.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    assert listening.wait(20)
    yield "silence.a"
    ended.set()
    thread.join()


def test_rows_that_nobody_confirms_do_not_stop_the_others(
    stream: str, outbox: Any, silence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nats_consumer.contrib.outbox import relay

    monkeypatch.setattr(relay, "BATCH", 3)
    monkeypatch.setattr(relay, "CONFIRM_SECONDS", 2.0)
    for number in range(3):
        publish_on_commit(silence, str(number), key=f"silent {number}")
    publish_on_commit(f"{stream}.a", b"good", key="good")
    publish_on_commit(f"{stream}.a", b"behind", key="silent 1")
    relay_all()
    assert [data for _, data in stored(stream)] == [b"good"]
    assert output_of("list", "--stuck").count("refused 1 times: No confirmation for") == 3
    assert outbox.OutboxMessage.objects.count() == 4


def test_a_row_whose_subject_holds_a_brace_is_published(stream: str, outbox: Any) -> None:
    publish_on_commit(f"{stream}.x", b"1")
    outbox.OutboxMessage.objects.update(subject=f"{stream}." + "{x}")
    relay_all()
    assert stored(stream) == [(f"{stream}." + "{x}", b"1")]


@pytest.mark.parametrize(
    "fault", [{"subject": "orders..x"}, {"headers": "["}, {"headers": '{"A": "\\n"}'}]
)
def test_a_row_that_cannot_be_sent_is_put_off_with_its_key(
    stream: str, outbox: Any, fault: dict[str, str]
) -> None:
    publish_on_commit(f"{stream}.a", b"first", key="k")
    publish_on_commit(f"{stream}.a", b"bad", key="k", msg_id="bad")
    publish_on_commit(f"{stream}.a", b"behind", key="k")
    publish_on_commit(f"{stream}.a", b"other")
    outbox.OutboxMessage.objects.filter(msg_id="bad").update(**fault)
    relay_all()
    assert [data for _, data in stored(stream)] == [b"first", b"other"]
    assert output_of("list", "--stuck").count("refused 1 times") == 1


def test_a_refused_row_is_not_put_off_behind_one_of_its_key_that_may_be_stored(
    outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nats_consumer.contrib.outbox import relay

    class Half:
        def publish_many(self, drafts: Any, timeout: float) -> Any:
            return [], [(0, Disconnected("lost")), (1, NoStreamResponse("none"))]

    monkeypatch.setattr(relay, "current_publisher", lambda in_order: Half())
    publish_many_on_commit([("orders.a", b"1"), ("orders.a", b"2")])
    ours = relay.Relay("default")
    with pytest.raises(Disconnected):
        ours.relay_batch()
    ours.end()
    assert not outbox.OutboxMessage.objects.filter(attempts__gt=0).exists()


def test_a_stream_that_is_missing_is_logged_once_for_all_its_rows(
    stream: str, outbox: Any, caplog: pytest.LogCaptureFixture
) -> None:
    publish_many_on_commit([(f"nowhere.{n}", b"x") for n in range(1200)])
    publish_on_commit(f"{stream}.a", b"good")
    with CaptureQueriesContext(connection) as queries:
        relay_all()
    errors = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert len(errors) == 1
    assert "500 messages were refused, such as" in errors[0]
    assert "for nowhere.0: No stream has the subject nowhere.0" in errors[0]
    assert len(queries) < 50
    assert [data for _, data in stored(stream)] == [b"good"]
    assert not outbox.OutboxMessage.objects.filter(attempts=0).exists()
    last = outbox.OutboxMessage.objects.last()
    assert last.error.startswith("No stream has the subject nowhere.1199")


def test_rows_behind_a_refused_one_follow_together_when_it_is_stored(
    stream: str, outbox: Any, fresh: Callable[[str], str]
) -> None:
    late = fresh("late")
    publish_many_on_commit([Outgoing(f"{late}.a", str(n), key="k") for n in range(100)])
    relay_all()
    add_stream(late)
    [refused] = outbox.OutboxMessage.objects.filter(attempts=1)
    output_of("retry", str(refused.pk))
    relay_all()
    assert [int(data) for _, data in stored(late)] == list(range(100))


def test_retry_fails_for_messages_that_were_not_refused_and_tries_the_others(
    stream: str, outbox: Any
) -> None:
    publish_on_commit("nobody.has.this", b"1")
    relay_all()
    publish_on_commit(f"{stream}.a", b"1")
    refused, fresh = outbox.OutboxMessage.objects.order_by("pk")
    later = refused.next_attempt_at
    with pytest.raises(CommandError, match=f"^{fresh.pk} does not exist, or was not refused"):
        output_of("retry", str(refused.pk), str(fresh.pk))
    refused.refresh_from_db()
    assert refused.next_attempt_at < later


def test_drop_fails_for_an_id_that_does_not_exist(stream: str, outbox: Any) -> None:
    publish_on_commit(f"{stream}.a", b"1")
    [row] = outbox.OutboxMessage.objects.all()
    with pytest.raises(CommandError, match=r"^999999 does not exist"):
        output_of("drop", str(row.pk), "999999", "--yes")
    assert not outbox.OutboxMessage.objects.exists()


def test_a_message_for_later_is_relayed_at_once_and_waits_in_its_stream(
    outbox: Any, fresh: Callable[[str], str]
) -> None:
    stream = fresh("orders")

    async def add() -> None:
        async with await get_nats_client() as client:
            await client.jetstream().add_stream(
                name=stream,
                subjects=[f"{stream}.>", f"_later.*.{stream}.>"],
                allow_msg_schedules=True,
                allow_msg_ttl=True,
            )

    asyncio.run(add())
    publish_on_commit(f"{stream}.remind", b"later", at=timedelta(hours=1), ttl=60, msg_id="7")
    publish_many_on_commit([Outgoing(f"{stream}.remind", b"too", at=timedelta(hours=1), msg_id=8)])
    relay_all()
    assert stored(stream) == [
        (f"_later.7.{stream}.remind", b"later"),
        (f"_later.8.{stream}.remind", b"too"),
    ]


def status_of(*arguments: str) -> tuple[int, str]:
    """The exit code and the output of nats_status, in a project without consumers."""
    out = StringIO()
    try:
        call_command("nats_status", *arguments, stdout=out, no_color=True)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    except SystemExit as ended:
        return int(str(ended.code)), out.getvalue()
    return 0, out.getvalue()


@pytest.fixture
def no_consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_declared", {})


@pytest.mark.usefixtures("no_consumers")
def test_the_status_shows_how_far_the_relay_is_behind(stream: str, outbox: Any) -> None:
    assert status_of("--check")[0] == 0
    publish_on_commit("nobody.has.this", b"1", key="k1")
    code, told = status_of("--check")
    assert (code, told) == (2, "CRITICAL: outbox of default: no relay runs, and 1 messages wait\n")
    relay_all()
    publish_on_commit(f"{stream}.a", b"2", key="k1")
    outbox.OutboxMessage.objects.update(created_at=Now() - timedelta(hours=3))
    lease = Lease("default")
    assert lease.hold()
    assert status_of("--check", "--max-oldest", "2h") == (
        2,
        "CRITICAL: outbox of default: 10800 seconds since the oldest was stored, more than 7200\n"
        "WARNING: outbox of default: 1 messages were refused, and their keys wait\n",
    )
    assert status_of("--check")[0] == 1
    row = f"default        2     3 h        1  {lease.holder}"
    assert row in status_of()[1].splitlines()
    [found] = json.loads(status_of("--json")[1])["outboxes"]
    assert (found["rows"], found["stuck"], found["relay"]) == (2, 1, lease.holder)


@pytest.mark.usefixtures("no_consumers")
def test_a_database_that_cannot_be_asked_is_named_by_the_status(
    outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(using: str) -> None:
        raise OperationalError("the database is away\n")

    monkeypatch.setattr("nats_consumer.contrib.outbox.status.lag", fail)
    assert status_of() == (
        1,
        "outbox   waiting  oldest  refused  relay\n"
        "default  ?        ?       ?        the database is away\n\n"
        "No answer from the database default.",
    )
    assert status_of("--check") == (3, "UNKNOWN: outbox of default: the database is away\n")


def test_a_message_is_dropped_only_when_asked_twice(stream: str, outbox: Any) -> None:
    publish_on_commit("nobody.has.this", b"1")
    [row] = outbox.OutboxMessage.objects.all()
    with pytest.raises(CommandError, match="add --yes"):
        output_of("drop", str(row.pk))
    assert "deleted 1" in output_of("drop", str(row.pk), "--yes")
    assert not outbox.OutboxMessage.objects.exists()


def test_a_stream_that_forgets_message_ids_early_is_warned_of_once(
    stream: str, outbox: Any, fresh: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    from nats_consumer.contrib.outbox.relay import Relay

    patient = fresh("orders")
    add_stream(patient, duplicate_window=600)
    ours = Relay("default")
    for number in range(2):
        publish_on_commit(f"{stream}.a", str(number))
        publish_on_commit(f"{patient}.a", str(number))
        assert ours.relay_batch() == 2
    ours.end()
    assert caplog.text.count(f"{stream} remembers message ids for 120 s") == 1
    assert patient not in caplog.text


def test_a_relay_opens_no_transaction_that_it_could_be_frozen_in(stream: str, outbox: Any) -> None:
    from nats_consumer.contrib.outbox.relay import Relay

    ours = Relay("default")
    assert ours.relay_batch() == 0
    publish_on_commit(f"{stream}.a", b"1")
    with CaptureQueriesContext(connection) as queries:
        assert ours.relay_batch() == 1
    ours.end()
    statements = {each["sql"].split()[0] for each in queries}
    assert "DELETE" in statements
    assert "BEGIN" not in statements


def test_two_relays_never_publish_at_once(stream: str, outbox: Any) -> None:
    from nats_consumer.contrib.outbox.relay import Relay

    first, second = Relay("default"), Relay("default")
    assert first.relay_batch() == 0
    publish_on_commit(f"{stream}.a", b"1")
    assert second.relay_batch() is None
    with pytest.raises(CommandError, match="another relay holds the lease"):
        relay_all()
    first.end()
    assert second.relay_batch() == 1
    second.end()


def test_the_lease_of_a_relay_that_was_killed_ends(stream: str, outbox: Any) -> None:
    from nats_consumer.contrib.outbox.relay import Relay

    killed, heir = Relay("default"), Relay("default")
    assert killed.relay_batch() == 0
    outbox.RelayLease.objects.update(until=Now() - timedelta(seconds=0.1))
    assert heir.relay_batch() == 0
    heir.end()


def test_a_relay_that_was_frozen_notices_that_another_took_over(
    outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nats_consumer.contrib.outbox import lease

    now = 0.0
    monkeypatch.setattr(lease, "monotonic", lambda: now)
    frozen, heir = lease.Lease("default"), lease.Lease("default")
    assert frozen.hold()
    outbox.RelayLease.objects.update(until=Now() - timedelta(seconds=1))
    assert heir.hold()
    now = 20.0
    assert not frozen.hold()
    heir.give_back()
    assert frozen.hold()


def test_a_relay_that_cannot_publish_lets_another_one_have_the_lease(
    stream: str, outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nats_consumer.contrib.outbox import relay, run

    gave_up = threading.Event()
    publishing = relay.current_publisher

    class Nowhere:
        def publish_many(self, drafts: Any, timeout: float) -> Any:
            raise NoServers("no route")

    def publisher(in_order: bool) -> Any:
        is_ill = threading.current_thread().name == "ill"
        return Nowhere() if is_ill else publishing(in_order=in_order)

    monkeypatch.setattr(relay, "current_publisher", publisher)
    monkeypatch.setattr(run, "_SHORTEST_PAUSE_SECONDS", 60.0)
    ill, well = run.RelayThread("default"), relay.Relay("default")
    ill._thread.name = "ill"
    monkeypatch.setattr(run, "close_connections", lambda: (connections.close_all(), gave_up.set()))
    publish_on_commit(f"{stream}.a", b"1")
    ill.start()
    try:
        assert gave_up.wait(20)
        assert well.relay_batch() == 1
    finally:
        well.end()
        ill.stop()
        ill.join(monotonic() + 20)


def test_a_relay_without_the_lease_asks_no_more_often_because_of_nudges(
    stream: str, outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nats_consumer.contrib.outbox import run

    monkeypatch.setattr(run, "_LOOK_EVERY_SECONDS", 60.0)
    asked: list[int | None] = []
    has_asked = threading.Event()

    class Standby:
        using, published = "default", 0

        def relay_batch(self) -> None:
            asked.append(None)
            standby._due.set()  # a nudge that comes meanwhile
            has_asked.set()

        def end(self) -> None:
            pass

    standby = run.RelayThread("default")
    monkeypatch.setattr(standby, "_relay", Standby())
    standby.start()
    assert has_asked.wait(20)
    standby.stop()
    standby.join(monotonic() + 20)
    assert asked == [None]


def test_a_read_only_database_is_told_of_once(
    outbox: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from nats_consumer.contrib.outbox import run

    monkeypatch.setattr(run, "_READ_ONLY_PAUSE_SECONDS", 0.001)
    replica = run.RelayThread("default")
    failures = iter(range(3))

    class OfReplica:
        using, published = "default", 0

        def relay_batch(self) -> int:
            if next(failures, None) is None:
                replica._stopping.set()
                return 0
            raise OperationalError("attempt to write a readonly database")

        def end(self) -> None:
            pass

    monkeypatch.setattr(replica, "_relay", OfReplica())
    replica.start()
    replica.join(monotonic() + 20)
    replica.stop()
    replica.join(monotonic() + 20)
    assert caplog.text.count("accepts no writes") == 1


def test_a_transaction_nudges_the_relay_once(outbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nudged: list[str] = []
    monkeypatch.setattr(write.Nudge, "__call__", lambda nudge: nudged.append(nudge.alias))
    with transaction.atomic():
        for _ in range(3):
            publish_on_commit("orders.created", b"1")
    assert nudged == ["default"]


def test_a_savepoint_that_is_rolled_back_takes_no_nudge_of_other_rows_with_it(
    outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudged: list[str] = []
    monkeypatch.setattr(write.Nudge, "__call__", lambda nudge: nudged.append(nudge.alias))
    with transaction.atomic():
        with suppress(RuntimeError), transaction.atomic():
            publish_on_commit("orders.created", b"lost")
            raise RuntimeError
        publish_on_commit("orders.created", b"kept")
    assert nudged == ["default"]


@pytest.mark.parametrize("key", [7, UUID(int=7)])
def test_a_key_may_be_a_primary_key(outbox: Any, key: Any) -> None:
    publish_on_commit("orders.created", b"1", key=key)
    publish_many_on_commit([Outgoing("orders.created", b"2", key=key)])
    assert [row.key for row in outbox.OutboxMessage.objects.all()] == [str(key)] * 2


def test_a_lower_id_that_commits_later_is_not_skipped(
    stream: str, outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nats_consumer.contrib.outbox import relay

    now = 0.0
    monkeypatch.setattr(relay, "monotonic", lambda: now)
    publish_many_on_commit([(f"{stream}.a", b"low"), (f"{stream}.a", b"high")])
    low = outbox.OutboxMessage.objects.order_by("pk").first()
    outbox.OutboxMessage.objects.filter(pk=low.pk).delete()
    ours = relay.Relay("default")
    assert ours.relay_batch() == 1
    low.save(force_insert=True)
    now = 1.5
    assert ours.relay_batch() == 1
    ours.end()
    assert [data for _, data in stored(stream)] == [b"high", b"low"]


def test_a_row_outside_of_the_only_transaction_is_refused(
    outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nats_consumer.contrib.outbox import write

    class Other:
        alias = "other"
        in_atomic_block = True

    class Connections:
        def __getitem__(self, alias: str) -> Any:
            return connection

        def all(self, initialized_only: bool) -> list[Any]:
            return [connection, Other()]

    monkeypatch.setattr(write, "connections", Connections())
    with pytest.raises(OutboxError, match="using='other'"):
        publish_on_commit("orders.created", {})


@pytest.mark.parametrize(
    ("key", "error"),
    [(7.5, TypeError), (b"k", TypeError), ("a\x00", OutboxError), ("\ud800", OutboxError)],
)
def test_a_key_that_a_database_cannot_keep_leaves_the_transaction_whole(
    outbox: Any, key: Any, error: type[Exception]
) -> None:
    with transaction.atomic():
        with pytest.raises(error, match="key"):
            publish_on_commit("orders.created", b"", key=key)
        publish_on_commit("orders.created", b"", key="k")
    assert outbox.OutboxMessage.objects.count() == 1


def test_what_a_server_would_refuse_fails_the_transaction(outbox: Any) -> None:
    with pytest.raises(PayloadTooLarge):
        publish_on_commit("orders.created", b"x" * (1 << 20) + b"x")
    with pytest.raises(ValueError, match="orders"):
        publish_on_commit("orders.*", b"x")
    assert not outbox.OutboxMessage.objects.exists()


@pytest.fixture
def outbox_of_a_small_server(outbox: Any, tmp_path: Path, settings: Settings) -> Iterator[None]:
    """Its server takes messages of up to 1,000 bytes."""
    configuration = tmp_path / "small.conf"
    configuration.write_text("max_payload: 1000\n")
    server = NatsServer(tmp_path, ["-c", str(configuration)])
    server.start()
    settings.NATS_CONSUMER = {"connect_args": {"servers": server.url}}
    with own_publishers():
        yield
    server.kill()


@pytest.mark.usefixtures("outbox_of_a_small_server")
def test_a_message_larger_than_this_server_takes_fails_the_transaction() -> None:
    add_stream("small")
    publish("small.first", b"")
    with pytest.raises(PayloadTooLarge, match="takes at most 1000"):
        publish_on_commit("small.large", b"x" * 1000)
    publish_on_commit("small.fits", b"x" * 900)
    relay_all()
    assert [subject for subject, _ in stored("small")] == ["small.first", "small.fits"]


def test_a_transaction_does_not_wait_for_a_server_that_stands_still(
    outbox: Any, own_server: NatsServer, settings: Settings
) -> None:
    settings.NATS_CONSUMER = {"connect_args": {"servers": own_server.url}}
    add_stream("orders")
    publish("orders.first", b"")
    took: list[float] = []
    # Whatever waited for an answer would raise after its timeout, or wait for the end of the pause.
    with own_server.paused():
        for number in range(100):
            began = monotonic()
            publish_on_commit("orders.created", str(number))
            took.append(monotonic() - began)
        assert outbox.OutboxMessage.objects.count() == 100
    # The least of them: a busy machine is slow.
    assert min(took) < 0.005
    relay_all()
    assert len(stored("orders")) == 101


def test_metrics_show_what_waits_while_this_process_relays(stream: str, outbox: Any) -> None:
    waiting = Metrics("default")
    publish_on_commit(f"{stream}.a", b"1")
    publish_on_commit("nobodys.subject", b"2")
    outbox.OutboxMessage.objects.filter(subject="nobodys.subject").update(attempts=1)
    before = outbox_metrics()["published_total"]  # from now on, somebody reads
    waiting.update(3, holds=True)
    shown = outbox_metrics()
    assert (shown["rows"], shown["stuck"]) == (2.0, 1.0)
    assert shown["oldest_seconds"] >= 0.0
    assert shown["published_total"] == before + 3.0
    waiting.update(3, holds=False)
    assert outbox_metrics() == {"published_total": shown["published_total"]}


def test_a_row_is_written_where_a_program_commits_by_itself(stream: str, outbox: Any) -> None:
    transaction.set_autocommit(False)
    try:
        publish_on_commit(f"{stream}.a", b"1")
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    relay_all()
    assert [data for _, data in stored(stream)] == [b"1"]


def test_the_hook_is_used_where_the_caller_says_so(stream: str, outbox: Any) -> None:
    publish_on_commit(f"{stream}.a", b"now", outbox=False)
    assert not outbox.OutboxMessage.objects.exists()
    assert [data for _, data in stored(stream)] == [b"now"]


def test_a_capture_sees_what_would_be_a_row(outbox: Any) -> None:
    with capture_published() as published:
        publish_on_commit("orders.created", b"1")
    assert [each.data for each in published] == [b"1"]
    assert not outbox.OutboxMessage.objects.exists()


def test_the_outbox_refuses_another_system_and_names_the_hook(
    settings: Settings, outbox: Any
) -> None:
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "connections": {"analytics": {}}}
    with pytest.raises(ConfigurationError, match=r"outbox=False, connection='analytics'"):
        publish_on_commit("orders.created", b"", connection="analytics")
    with pytest.raises(ConfigurationError, match="connection default only, not to analytics"):
        publish_many_on_commit([("orders.created", b"")], connection="analytics")
    assert not outbox.OutboxMessage.objects.exists()


def test_an_outbox_that_is_not_installed_is_asked_for_and_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"nats_consumer\.contrib\.outbox"):
        publish_on_commit("orders.created", b"1", outbox=True)


def test_rows_that_are_written_while_the_server_is_away_arrive_in_their_order(
    outbox: Any, own_server: NatsServer, settings: Settings, fresh: Callable[[str], str]
) -> None:
    from nats_consumer.contrib.outbox.lag import lag
    from nats_consumer.contrib.outbox.run import relays

    servers = {"servers": own_server.url, "reconnect_time_wait": 0.1}
    settings.NATS_CONSUMER = {"connect_args": servers}
    name = fresh("orders")
    add_stream(name)
    with own_publishers(), relays(["default"]):
        publish_on_commit(f"{name}.n", b"0")
        eventually(lambda: lag().rows == 0)
        own_server.stop()
        for number in range(1, 1001):
            publish_on_commit(f"{name}.n", str(number))
        assert lag().rows == 1000
        assert lag().oldest_seconds > 0
        own_server.start()
        eventually(lambda: lag().rows == 0, 60)
        assert lag().oldest_seconds == 0
    assert [int(data) for _, data in stored(name)] == list(range(1001))


CONSUMERS = """
from nats_consumer import JetstreamPullConsumer, publish_on_commit

class Paid(JetstreamPullConsumer):
    stream_name = "{stream}"
    filter_subject = "{stream}.paid"

    def handle_message(self, message):
        publish_on_commit("{stream}.invoiced", message.data)
"""
INSTALLED = """
INSTALLED_APPS += ["nats_consumer.contrib.outbox"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {name!r}}}}}
"""


def test_a_worker_relays_what_its_handlers_write(
    stream: str, nats_server: NatsServer, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project", nats_server.url, CONSUMERS.format(stream=stream))
    settings = (project.folder / "settings.py").read_text()
    installed = INSTALLED.format(name=str(tmp_path / "shop.sqlite3"))
    project.write("settings.py", settings + installed)
    try:
        assert project.run("manage.py", "migrate").finish(30) == 0
        worker = project.consume()
        worker.wait_for("consuming")
        publish(f"{stream}.paid", b"7")
        eventually(lambda: (f"{stream}.invoiced", b"7") in stored(stream))
        worker.interrupt()
        assert worker.finish(30) == 0, worker.output
        assert "Traceback" not in worker.output
    finally:
        project.end()


def test_a_running_relay_publishes_what_other_threads_commit(stream: str, outbox: Any) -> None:
    from nats_consumer.contrib.outbox.run import relays

    def write() -> None:
        for number in range(20):
            publish_on_commit(f"{stream}.n", str(number))
        connection.close()

    with relays(["default"]):
        writer = threading.Thread(target=write)
        writer.start()
        writer.join()
        eventually(lambda: not outbox.OutboxMessage.objects.exists(), 20)
    assert [data for _, data in stored(stream)] == [b"%d" % n for n in range(20)]
    assert not outbox.RelayLease.objects.exclude(holder="").exists()


def test_a_row_is_published_at_once_where_a_relay_runs(
    stream: str, outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nats_consumer.contrib.outbox import run

    # Without the nudge it would take as long as this.
    monkeypatch.setattr(run, "_LOOK_EVERY_SECONDS", 60.0)
    with run.relays(["default"]):
        publish_on_commit(f"{stream}.n", b"1")
        publish_on_commit(f"{stream}.n", b"2")
        eventually(lambda: publish_until_empty(stream, outbox), 20)


def publish_until_empty(stream: str, outbox: Any) -> bool:
    """Whether no row waits. Each try sends a nudge, because the first may be sent before the relay
    listens."""
    if not outbox.OutboxMessage.objects.exists():
        return True
    publish_on_commit(f"{stream}.n", b"again")
    return False
