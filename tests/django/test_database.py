"""Database connections, around each delivery and at a thread's end."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, OperationalError, connection, connections
from pytest_django import Settings

from nats_consumer import JetstreamPullConsumer, lanes
from nats_consumer.lanes import database, handler_threads, own_thread
from nats_consumer.run.batch_dispatch import dispatch_for
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


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The next connection breaks while Django sets it up, as when the database restarts. Returns
    the connections that are closed afterwards if they are broken."""
    wrapper = type(connections["default"])
    set_up = wrapper.init_connection_state
    breaks = iter([True])
    looked_at: list[Any] = []

    def set_up_or_break(self: Any) -> None:
        if next(breaks, False):
            raise OperationalError("the connection is closed")
        set_up(self)

    monkeypatch.setattr(wrapper, "init_connection_state", set_up_or_break)
    monkeypatch.setattr(wrapper, "close_if_unusable_or_obsolete", lambda it: looked_at.append(it))
    return looked_at


@pytest.mark.parametrize("kept", [(None, True), (0, True)], indirect=True)
@pytest.mark.usefixtures("kept")
def test_a_thread_looks_at_a_connection_that_broke_while_it_was_set_up(
    looked_at: list[Any],
) -> None:
    dispatch = dispatch_for(Querying(), 1)
    wrappers: list[Any] = []

    class Failing(FakeConsumption):
        def serve(self, rest: Any) -> None:
            with suppress(OperationalError):
                dispatch.handle(FakeMessage())
            wrappers.append(connections["default"])

    _serve(dispatch, Failing())
    assert looked_at == wrappers


@pytest.mark.usefixtures("async_threads")
def test_so_does_one_of_async_handlers_before_the_next_query(looked_at: list[Any]) -> None:
    consumer = Querying()

    async def run() -> None:
        with suppress(OperationalError):
            await query_in_a_handler(consumer)
        assert not looked_at
        await query_in_a_handler(consumer)

    asyncio.run(run())
    assert [each.connection for each in looked_at] == consumer.used


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


def test_an_idle_thread_that_async_handlers_call_ends_and_closes_its_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "_IDLE_SECONDS", 0.01)
    monkeypatch.setattr(lanes, "_END_SECONDS", 0.01)
    wrappers: list[Any] = []

    def query() -> None:
        Querying().handle_message(None)
        wrappers.append(connections["default"])

    async def run() -> None:
        threads = lanes.Threads("Calling", 1)
        with threads.in_use():
            for number in range(2):
                await lanes.call(query)
                await becomes_true(lambda: not threads.alive())
                await becomes_true(lambda count=number: wrappers[count].connection is None)
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


@pytest.fixture
def async_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Threads of async handlers, of this test's own; all end with the test."""
    made = own_thread._Threads()
    monkeypatch.setattr(own_thread, "_threads", made)
    monkeypatch.setattr(own_thread, "has_one_writer", lambda: False)
    yield made
    eventually(lambda: not own_thread.end_threads())


async def query_in_a_handler(consumer: Querying, queries: int = 1) -> None:
    with own_thread.own_thread():
        for _ in range(queries):
            await sync_to_async(consumer.handle_message)(None)


@pytest.mark.usefixtures("async_threads")
def test_a_connection_of_an_async_handler_lives_as_long_as_conn_max_age_says(kept: bool) -> None:
    consumer = Querying()

    async def run() -> None:
        await query_in_a_handler(consumer, 2)
        await query_in_a_handler(consumer)

    asyncio.run(run())
    first, second, third = consumer.used
    assert first is second
    assert (second is third) is kept


@pytest.mark.parametrize("kept", [(0, False)], indirect=True)
@pytest.mark.usefixtures("kept")
def test_an_idle_thread_of_async_handlers_closes_its_connections(
    async_threads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_thread, "_REST_SECONDS", 0.01)
    wrappers: list[Any] = []

    async def run() -> None:
        with own_thread.own_thread():
            await sync_to_async(lambda: connection.ensure_connection())()
            wrappers.append(await sync_to_async(lambda: connections["default"])())
        await becomes_true(lambda: wrappers[0].connection is None)
        assert len(async_threads._all) == 1

    asyncio.run(run())


@pytest.mark.usefixtures("async_threads")
def test_connections_of_an_async_handler_are_looked_after_before_its_first_query_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []
    consumer = Querying()
    monkeypatch.setattr(own_thread, "refresh", lambda: looks.append(len(consumer.used)))

    async def run() -> None:
        await query_in_a_handler(consumer, 3)
        await query_in_a_handler(consumer, 2)

    asyncio.run(run())
    assert looks == [0, 3]


def test_a_pooled_connection_of_an_async_handler_goes_back_when_it_ends(
    async_threads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    consumer = Querying()
    monkeypatch.setattr(own_thread, "are_pooled", lambda: True)
    monkeypatch.setattr(own_thread, "refresh", lambda: looks.append(len(consumer.used)))

    async def run() -> None:
        await query_in_a_handler(consumer, 2)
        await becomes_true(lambda: async_threads._free)

    asyncio.run(run())
    assert looks == [0, 2]


def test_only_broken_connections_are_closed_in_a_thread_that_handlers_share(
    async_threads: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.NATS_CONSUMER = {"max_threads": 1}
    consumer = Querying()

    def lose_it() -> None:
        connection.connection.close()
        connection.is_usable = lambda: False  # SQLite's own says that it always is
        with pytest.raises(DatabaseError):
            consumer.handle_message(None)

    async def run() -> None:
        with own_thread.own_thread():
            await sync_to_async(consumer.handle_message)(None)
            await asyncio.create_task(other())

    async def other() -> None:
        await query_in_a_handler(consumer)
        assert consumer.used[0] is consumer.used[1]
        with own_thread.own_thread():
            await sync_to_async(lose_it)()
        await query_in_a_handler(consumer)
        assert consumer.used[1] is not consumer.used[-1]

    configured = connections.settings["default"]
    monkeypatch.setitem(configured, "CONN_MAX_AGE", 1e-6)
    asyncio.run(run())
    assert len(async_threads._all) == 1


def test_a_thread_closes_its_connections_at_its_end() -> None:
    dispatch = dispatch_for(Querying(), 1)
    consumption = Delivering(dispatch.handle)
    _serve(dispatch, consumption)
    assert consumption.wrapper.connection is None


def _serve(dispatch: Any, consumption: Delivering) -> None:
    async def start() -> None:
        dispatch.start(consumption)

    asyncio.run(start())
    eventually(lambda: not handler_threads.alive())


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
