"""Requests from Django code: sync and async, with and without somebody who answers."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nats_consumer import arequest, get_nats_client, request
from nats_consumer.exceptions import InvalidMessage, NoResponders, RequestTimeout, Unserializable
from nats_consumer.publish.publisher import _publishers
from nats_consumer.testing import capture_published
from tests.live.support.publishers import no_publisher_is_left  # noqa: F401 - after each test


@pytest.fixture
def prices(fresh: Callable[[str], str]) -> Iterator[str]:
    """A subject on which another thread answers with the data and the header Trace of the request,
    and one below it on which it never answers."""
    subject, ready = fresh("prices"), threading.Event()
    loop = asyncio.new_event_loop()
    stopped = asyncio.Event()

    async def answer(message: Any) -> None:
        trace = (message.headers or {}).get("Trace", "none")
        await message.respond(message.data + b" " + trace.encode())

    async def ignore(message: Any) -> None:
        pass

    async def serve() -> None:
        async with await get_nats_client() as client:
            await client.subscribe(subject, cb=answer)
            await client.subscribe(f"{subject}.silent", cb=ignore)
            await client.flush()
            ready.set()
            await stopped.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    yield subject
    loop.call_soon_threadsafe(stopped.set)
    thread.join()
    loop.close()


def test_sync_code_gets_the_answer(prices: str) -> None:
    answer = request(prices, {"number": 7}, headers={"Trace": "abc"})
    assert answer.data == b'{"number": 7} abc'


def test_async_code_gets_the_answers_of_many_requests_at_once(prices: str) -> None:
    async def ask() -> list[bytes]:
        answers = await asyncio.gather(*(arequest(prices, str(number)) for number in range(100)))
        return [answer.data for answer in answers]

    assert asyncio.run(ask()) == [f"{number} none".encode() for number in range(100)]


def test_a_request_without_data_is_answered(prices: str) -> None:
    assert request(prices).data == b" none"


def test_all_requests_share_one_connection(prices: str) -> None:
    request(prices)
    asyncio.run(arequest(prices))
    assert len(_publishers) == 1


def test_a_request_that_nobody_listens_for_fails_at_once(nats_server: object) -> None:
    with pytest.raises(NoResponders, match=r"nobody\.here"):
        request("nobody.here", timeout=600)
    with pytest.raises(NoResponders):
        asyncio.run(arequest("nobody.here", timeout=600))


def test_a_request_that_nobody_answers_ends_with_its_timeout(prices: str) -> None:
    with pytest.raises(RequestTimeout):
        request(f"{prices}.silent", timeout=0.1)
    with pytest.raises(RequestTimeout):
        asyncio.run(arequest(f"{prices}.silent", timeout=0.1))


def test_ctrl_c_ends_a_request_that_nobody_answers(prices: str) -> None:
    request(prices)  # the connection exists
    # Whoever runs the tests may ignore it, as a shell does for what runs in its background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            request(f"{prices}.silent", timeout=20)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("subject", "data", "error"),
    [
        ("prices.*", b"", InvalidMessage),
        ("", b"", InvalidMessage),
        ("prices", float("nan"), Unserializable),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused(
    nats_server: object, subject: str, data: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        request(subject, data)


def test_a_test_that_captures_what_is_published_gets_no_answer() -> None:
    with capture_published() as published, pytest.raises(NoResponders, match="tests send nothing"):
        request("prices", "7")
    assert [each.subject for each in published] == ["prices"]
