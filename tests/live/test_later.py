"""Messages for a later time, and messages with a time to live."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from nats_consumer import (
    Outgoing,
    api,
    apublish,
    get_nats_client,
    publish,
    publish_many,
)
from nats_consumer.exceptions import (
    InvalidMessage,
    MessageRefused,
    NoStreamResponse,
    NotAllStored,
    NotFound,
)
from tests.live.support.publishers import no_publisher_is_left  # noqa: F401 - after each test
from tests.servers import NatsServer
from tests.waiting import eventually

HOUR = timedelta(hours=1)
ALLOWED = {"allow_msg_schedules": True, "allow_msg_ttl": True}


def add_stream(name: str, *subjects: str, **config: Any) -> str:
    """Create a stream with a place for messages that wait."""

    async def add() -> None:
        async with await get_nats_client() as client:
            every = subjects or (f"{name}.>", f"_later.*.{name}.>")
            await client.jetstream().add_stream(name=name, subjects=list(every), **config)

    asyncio.run(add())
    return name


@pytest.fixture
def stream(nats_server: NatsServer, fresh: Callable[[str], str]) -> str:
    return add_stream(fresh("shop"), **ALLOWED)


def last(stream: str, subject: str) -> api.RawStreamMsg | None:
    """The last message of the stream on the subject, which may have wildcards."""

    async def read() -> api.RawStreamMsg | None:
        async with await get_nats_client() as client:
            try:
                return await client.jetstream().get_last_msg(stream, subject)
            except NotFound:
                return None

    return asyncio.run(read())


def arrived(stream: str, subject: str) -> api.RawStreamMsg:
    """The last message on the subject, once there is one."""
    eventually(lambda: last(stream, subject) is not None)
    message = last(stream, subject)
    assert message is not None
    return message


def waiting(stream: str, target: str) -> api.RawStreamMsg:
    message = last(stream, f"_later.*.{target}")
    assert message is not None
    return message


def test_a_message_for_later_waits_and_is_published_at_its_time(stream: str) -> None:
    due = timezone.now() + timedelta(seconds=1.5)
    publish(f"{stream}.remind", {"number": 7}, headers={"Trace": "abc"}, at=due)
    assert waiting(stream, f"{stream}.remind").data == b'{"number": 7}'
    message = arrived(stream, f"{stream}.remind")
    assert message.time is not None
    assert message.time >= due
    assert message.data == b'{"number": 7}'
    assert message.headers is not None
    assert message.headers["Trace"] == "abc"
    assert last(stream, f"_later.*.{stream}.remind") is None


def test_a_message_whose_time_has_passed_is_published_at_once(stream: str) -> None:
    for number, at in enumerate([timedelta(), -HOUR, datetime(1, 1, 1, tzinfo=UTC)]):
        publish(f"{stream}.{number}", b"", at=at)
        arrived(stream, f"{stream}.{number}")


def test_a_timedelta_counts_from_the_call(stream: str) -> None:
    before = datetime.now(UTC)
    publish(f"{stream}.remind", b"", at=HOUR)
    headers = waiting(stream, f"{stream}.remind").headers
    assert headers is not None
    due = datetime.fromisoformat(headers["Nats-Schedule"].removeprefix("@at "))
    assert before + HOUR <= due <= datetime.now(UTC) + HOUR


def test_async_code_publishes_for_later(stream: str) -> None:
    asyncio.run(apublish(f"{stream}.remind", b"", at=timedelta(), ttl=HOUR))
    headers = arrived(stream, f"{stream}.remind").headers
    assert headers is not None
    assert headers["Nats-TTL"] == "3600s"


def test_a_message_that_waits_outlives_the_max_age_of_its_stream(
    nats_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    stream = add_stream(fresh("shop"), max_age=1, duplicate_window=1, **ALLOWED)
    publish(f"{stream}.remind", b"late", at=timedelta(seconds=2.5))
    assert arrived(stream, f"{stream}.remind").data == b"late"


def test_a_consumer_with_a_filter_gets_only_what_is_due(stream: str) -> None:
    async def pending() -> int | None:
        async with await get_nats_client() as client:
            js = client.jetstream()
            config = api.ConsumerConfig(durable_name="c", filter_subject=f"{stream}.>")
            await js.add_consumer(stream, config)
            return (await js.consumer_info(stream, "c")).num_pending

    publish(f"{stream}.remind", b"", at=HOUR)
    publish(f"{stream}.now", b"")
    assert asyncio.run(pending()) == 1


def test_messages_for_one_subject_do_not_replace_each_other(stream: str) -> None:
    many = [Outgoing(f"{stream}.remind", str(n), at=timedelta()) for n in range(20)]
    assert len(publish_many(many)) == 20

    async def count() -> int:
        async with await get_nats_client() as client:
            info = await client.jetstream().stream_info(stream, subjects_filter=f"{stream}.>")
            return (info.state.subjects or {}).get(f"{stream}.remind", 0)

    eventually(lambda: asyncio.run(count()) == 20)


def test_a_message_id_is_the_place_where_a_message_waits(stream: str) -> None:
    first = publish(f"{stream}.remind", b"", at=HOUR, msg_id="order 7.paid")
    again = publish(f"{stream}.remind", b"", at=2 * HOUR, msg_id="order 7.paid")
    assert again.duplicate
    assert again.seq == first.seq
    message = waiting(stream, f"{stream}.remind")
    assert message.subject == f"_later.order%207%2Epaid.{stream}.remind"
    with pytest.raises(InvalidMessage, match="id of at most"):
        publish(f"{stream}.remind", b"", at=HOUR, msg_id="." * 400)


def test_headers_that_name_a_target_are_sent_as_they_are(stream: str) -> None:
    headers = {"Nats-Schedule": "@at 2100-01-01T00:00:00Z", "Nats-Schedule-Target": f"{stream}.due"}
    publish(f"{stream}.mine", b"", headers=headers)
    assert last(stream, f"{stream}.mine") is not None


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"allow_msg_ttl": True}, "Set allow_msg_schedules"),
        ({"allow_msg_schedules": True}, "Set allow_msg_ttl"),
        ({**ALLOWED, "retention": "interest"}, 'has the retention "interest"'),
    ],
)
def test_a_stream_that_keeps_nothing_for_later_is_named_with_its_setting(
    nats_server: NatsServer, fresh: Callable[[str], str], config: dict[str, Any], told: str
) -> None:
    stream = add_stream(fresh("shop"), **config)
    publish(f"{stream}.now", b"")
    for _ in range(2):
        with pytest.raises(MessageRefused, match=told) as caught:
            publish(f"{stream}.remind", b"", at=HOUR)
        assert f"The stream {stream} " in str(caught.value)
    messages = [Outgoing(f"{stream}.remind", b"", at=HOUR), Outgoing(f"{stream}.now", b"")]
    with pytest.raises(NotAllStored) as some:
        publish_many(messages)
    assert told in str(some.value.failed[0])
    assert list(some.value.stored) == [1]


def test_a_stream_without_a_place_for_what_waits_is_told_what_to_add(
    nats_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    name = fresh("shop")
    add_stream(name, f"{name}.>", **ALLOWED)
    with pytest.raises(NoStreamResponse) as caught:
        publish(f"{name}.remind", b"", at=HOUR)
    assert f'such as "{name}.>", add "_later.*.{name}.>" to the stream' in str(caught.value)


def test_a_place_in_a_stream_without_the_subject_is_refused(
    nats_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    name = fresh("shop")
    add_stream(name, f"_later.*.{name}.>", **ALLOWED)
    with pytest.raises(MessageRefused, match=f"but not {name}.remind. Add both subjects"):
        publish(f"{name}.remind", b"", at=HOUR)


def test_a_stream_that_gives_no_time_to_live_is_named_with_its_setting(
    nats_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    stream = add_stream(fresh("shop"))
    told = f"{stream} does not allow a time to live for messages. Set allow_msg_ttl"
    with pytest.raises(MessageRefused, match=told):
        publish(f"{stream}.price", b"", ttl=60)


def test_a_message_is_deleted_after_its_time_to_live(stream: str) -> None:
    publish(f"{stream}.price", b"", ttl=timedelta(milliseconds=900) + timedelta(milliseconds=100))
    eventually(lambda: last(stream, f"{stream}.price") is None)


@contextmanager
def old_server() -> Iterator[str]:
    """Says that it is nats-server 2.11, and answers nothing but pings. Yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_pings, args=(listener,))
        thread.start()
        yield f"nats://127.0.0.1:{listener.getsockname()[1]}"
    thread.join()


def _answer_pings(listener: socket.socket) -> None:
    info = {"server_id": "x", "version": "2.11.11", "headers": True, "max_payload": 1 << 20}
    connection, _ = listener.accept()
    with connection, connection.makefile("rwb") as lines:
        lines.write(f"INFO {json.dumps(info)}\r\n".encode())
        lines.flush()
        for line in lines:
            if line.startswith(b"PING"):
                lines.write(b"PONG\r\n")
                lines.flush()


def test_a_server_that_is_too_old_is_named_with_its_version(settings: Settings) -> None:
    from nats_consumer.publish.publisher import current_publisher

    with old_server() as url:
        settings.NATS_CONSUMER = {"connect_args": {"servers": [url]}}
        with pytest.raises(MessageRefused, match=r"2\.11\.11.*needs nats-server 2\.12"):
            publish("shop.remind", b"", at=HOUR)
        with pytest.raises(NotAllStored) as caught:
            publish_many([Outgoing("shop.remind", b"", at=HOUR)])
        assert "2.11.11" in str(caught.value.failed[0])
        current_publisher().close(1.0)  # type: ignore[attr-defined]
