"""Database connections, around each delivery and at a thread's end."""

import asyncio
import threading
from typing import Any

import pytest
from django.db import connection, connections

from nats_consumer import JetstreamPullConsumer, database
from nats_consumer.dispatch import dispatch_for
from tests.unit.doubles import FakeConsumption, FakeMessage
from tests.waiting import eventually

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
    """Lets its thread handle two messages; then it is done."""

    def __init__(self, handle: Any, **more: Any) -> None:
        super().__init__(**more)
        self.handle = handle
        self.wrapper: Any = None

    def serve(self) -> None:
        self.handle(FakeMessage())
        self.handle(FakeMessage())
        self.wrapper = connections["default"]


@pytest.mark.parametrize(("max_age", "kept"), [(None, True), (0, False)])
def test_a_connection_lives_as_long_as_conn_max_age_says(max_age: int | None, kept: bool) -> None:
    consumer = Querying()
    dispatch = dispatch_for(consumer, 1)
    configured = connections.settings["default"]
    before = configured["CONN_MAX_AGE"]
    configured["CONN_MAX_AGE"] = max_age
    try:
        _serve(dispatch, Delivering(dispatch.handle))
    finally:
        configured["CONN_MAX_AGE"] = before
    first, second = consumer.used
    assert (first is second) is kept


def test_a_thread_closes_its_connections_at_its_end() -> None:
    dispatch = dispatch_for(Querying(), 1)
    consumption = Delivering(dispatch.handle)
    _serve(dispatch, consumption)
    assert consumption.wrapper.connection is None


def test_async_code_gets_its_connections_checked_in_the_thread_that_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[str] = []

    def note() -> None:
        threads.append(threading.current_thread().name)

    monkeypatch.setattr(database, "close_old_connections", note)
    monkeypatch.setattr(database, "_SECONDS_BETWEEN_CHECKS", 0)

    async def run() -> None:
        task = asyncio.create_task(database.keep_connections_fresh())
        await asyncio.to_thread(eventually, lambda: len(threads) > 1)
        task.cancel()

    asyncio.run(run())
    assert len(set(threads)) == 1
    assert threads[0] != threading.main_thread().name


def _serve(dispatch: Any, consumption: Delivering) -> None:
    async def start() -> None:
        dispatch.start(consumption)

    asyncio.run(start())
    eventually(lambda: not dispatch.stuck_threads())
