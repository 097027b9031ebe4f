"""Database connections, around each delivery and at a thread's end."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connection, connections
from pytest_django import Settings

from nats_consumer import JetstreamPullConsumer, lanes
from nats_consumer.lanes import database
from nats_consumer.run.dispatch import dispatch_for
from tests.unit.support.doubles import FakeConsumption, FakeMessage
from tests.waiting import becomes_true, eventually

pytestmark = pytest.mark.django_db(transaction=True)


class Querying(JetstreamPullConsumer):
    """Notes the connection that each of its deliveries used."""

    def __init__(self) -> None:
        self.used: list[Any] = []

    def handle_message(self, message: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        self.used.append(connection.connection)


class Delivering(FakeConsumption):
    """Lets its thread handle two messages, and then be idle; then it is done."""

    def __init__(self, handle: Any, **more: Any) -> None:
        super().__init__(**more)
        self.handle = handle
        self.wrapper: Any = None
        self.kept_when_idle: Any = None

    def serve(self, rest: Any) -> None:
        self.handle(FakeMessage())
        self.handle(FakeMessage())
        self.wrapper = connections["default"]
        rest()
        self.kept_when_idle = self.wrapper.connection


# A connection is too old after a microsecond.
@pytest.fixture(params=[(None, True), (1e-6, False), (0, True)])
def kept(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether a connection is to be kept, by what CONN_MAX_AGE says meanwhile."""
    configured = connections.settings["default"]
    before = configured["CONN_MAX_AGE"]
    configured["CONN_MAX_AGE"], kept = request.param
    yield kept
    configured["CONN_MAX_AGE"] = before


def test_a_connection_lives_as_long_as_conn_max_age_says(kept: bool) -> None:
    consumer = Querying()
    dispatch = dispatch_for(consumer, 1)
    _serve(dispatch, Delivering(dispatch.handle))
    first, second = consumer.used
    assert (first is second) is kept


@pytest.mark.parametrize("kept", [(None, True), (0, False)], indirect=True)
def test_an_idle_thread_closes_its_connections_as_conn_max_age_says(kept: bool) -> None:
    dispatch = dispatch_for(Querying(), 1)
    consumption = Delivering(dispatch.handle)
    _serve(dispatch, consumption)
    assert (consumption.kept_when_idle is not None) is kept


@pytest.mark.parametrize("kept", [(0, False)], indirect=True)
@pytest.mark.usefixtures("kept")
def test_an_idle_thread_that_async_handlers_call_closes_its_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "_IDLE_SECONDS", 0.01)
    wrappers: list[Any] = []

    def query() -> None:
        Querying().handle_message(None)
        wrappers.append(connections["default"])

    async def run() -> None:
        threads = lanes.Threads("Calling", 1)
        with threads.in_use():
            await lanes.call(query)
            await becomes_true(lambda: wrappers[0].connection is None)
            await lanes.call(query)
        threads.end()

    asyncio.run(run())


@pytest.mark.parametrize("kept", [(0, True)], indirect=True)
@pytest.mark.usefixtures("kept")
def test_a_connection_is_not_held_for_more_than_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_LONGEST_HELD_SECONDS", 1e-6)
    consumer = Querying()
    dispatch = dispatch_for(consumer, 1)
    _serve(dispatch, Delivering(dispatch.handle))
    first, second = consumer.used
    assert first is not second


def test_a_connection_of_a_pool_goes_back_after_each_message() -> None:
    settings: dict[str, Any] = {"CONN_MAX_AGE": 0, "OPTIONS": {}}
    wrapper: Any = SimpleNamespace(settings_dict=settings, close_at=time.monotonic())
    assert database._is_held(wrapper)
    settings["OPTIONS"]["pool"] = True
    assert not database._is_held(wrapper)


def test_so_does_one_that_an_async_handler_uses_through_a_plain_method(kept: bool) -> None:
    consumer = Querying()
    wrappers: list[Any] = []

    def query() -> None:
        consumer.handle_message(None)
        wrappers.append(connections["default"])

    async def run() -> None:
        threads = lanes.Threads("Calling", 1)
        with threads.in_use():
            await lanes.call(query)
            await lanes.call(query)
        threads.end()
        await becomes_true(lambda: not threads.alive())

    asyncio.run(run())
    first, second = consumer.used
    assert (first is second) is kept
    assert wrappers[0].connection is None


def test_a_thread_closes_its_connections_at_its_end() -> None:
    dispatch = dispatch_for(Querying(), 1)
    consumption = Delivering(dispatch.handle)
    _serve(dispatch, consumption)
    assert consumption.wrapper.connection is None


def test_async_code_gets_its_connections_checked_in_the_thread_that_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[threading.Thread] = []
    monkeypatch.setattr(
        database, "close_old_connections", lambda: threads.append(threading.current_thread())
    )
    monkeypatch.setattr(database, "_SECONDS_BETWEEN_CHECKS", 0)

    async def run() -> threading.Thread:
        async with keeping_connections_fresh():
            await becomes_true(lambda: len(threads) > 1)
            return await sync_to_async(threading.current_thread)()

    shared = asyncio.run(run())
    assert set(threads) == {shared}


def test_a_connection_that_broke_in_async_code_is_replaced_before_the_first_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pause, slept = asyncio.sleep, []

    async def note(seconds: float) -> None:
        slept.append(seconds)
        await pause(0)

    def lose_it() -> Any:
        connection.ensure_connection()
        connection.connection.close()
        with pytest.raises(DatabaseError):
            query()
        return connection.connection

    def query() -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return connection.connection

    async def run() -> None:
        lost = await sync_to_async(lose_it)()
        monkeypatch.setattr(database.asyncio, "sleep", note)
        async with keeping_connections_fresh():
            while len(slept) < 2:
                await pause(0)
        assert await sync_to_async(query)() is not lost

    asyncio.run(run())
    assert slept[0] < JetstreamPullConsumer.initial_retry_delay


def test_one_failed_check_of_the_connections_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checks: list[int] = []

    def fail() -> None:
        checks.append(1)
        raise DatabaseError("no answer")

    monkeypatch.setattr(database, "close_old_connections", fail)
    monkeypatch.setattr(database, "_SECONDS_BETWEEN_CHECKS", 0)

    async def run() -> None:
        async with keeping_connections_fresh():
            await becomes_true(lambda: len(checks) > 1)

    asyncio.run(run())
    assert "no answer" in caplog.text


@asynccontextmanager
async def keeping_connections_fresh() -> AsyncIterator[None]:
    task = asyncio.create_task(database.keep_connections_fresh())
    try:
        yield
    finally:
        task.cancel()


def _serve(dispatch: Any, consumption: Delivering) -> None:
    async def start() -> None:
        dispatch.start(consumption)

    asyncio.run(start())
    eventually(lambda: not dispatch.stuck_threads())


class Counting(Querying):
    """Notes how many queries Django keeps."""

    def handle_message(self, message: Any) -> None:
        super().handle_message(message)
        self.used.append(len(connection.queries))


def test_the_queries_that_debug_keeps_are_those_of_one_message(settings: Settings) -> None:
    settings.DEBUG = True
    consumer = Counting()
    dispatch = dispatch_for(consumer, 1)
    _serve(dispatch, Delivering(dispatch.handle))
    _, first, _, second = consumer.used
    assert first == second > 0
