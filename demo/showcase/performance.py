"""The show: set up, work, stop, and read back what happened."""

import asyncio
import fcntl
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from django.conf import settings
from django.core.management import call_command

from nats_consumer import get_nats_client
from nats_consumer.client import Client
from nats_consumer.connect.embedded import server_url
from nats_consumer.contrib.inbox.models import InboxMessage
from nats_consumer.contrib.outbox.models import OutboxMessage
from nats_consumer.exceptions import StreamNotFound
from nats_consumer.settings import embedded_store
from shop import events, payments
from shop.consumers import TrackOrders
from shop.customers import card, place_orders
from shop.models import Customer, Milestone, Order, PaymentAttempt, SearchEntry

from . import facts, summary
from .board import Board
from .worker import Worker

_TABLES = (Order, Customer, PaymentAttempt, SearchEntry, Milestone, OutboxMessage, InboxMessage)
_CUSTOMERS_PAUSE_SECONDS = 0.2
_LOOK_SECONDS = 0.2
_STALL_SECONDS = 45.0


class ShowStopped(Exception):
    """The show cannot go on; the message says why."""


def perform(orders: int) -> int:
    """Run the whole show with this number of orders; return 0 if server and database agree at the
    end. Raises ShowStopped."""
    # The screen is for the board. What the worker logs is in its file.
    logging.disable(logging.WARNING)
    store = embedded_store()
    numbers = range(1, orders + 1)
    cards = Counter(card(number, numbers) for number in numbers)
    with _only_show_in(store) as lock:
        _prepare(store)
        with Worker(settings.BASE_DIR, store / "worker.log", keep_open=lock) as worker:
            print(f"Worker      manage.py nats_consumer --setup, log in {_short(worker.log)}")
            print(f"Customers   place {orders:,} orders; {_troubles(cards)}\n")
            asyncio.run(_watch(orders, worker))
            exit_code = worker.drain()
        now, dead = asyncio.run(_read_back())
    results = summary.checks(cards, now, dead, exit_code)
    print(summary.report(now, dead, results))
    return 0 if all(check.holds for check in results) else 1


@contextmanager
def _only_show_in(store: Path) -> Iterator[int]:
    """Two shows at once would count each other's orders. The worker inherits the lock, so that
    one which survived its show is noticed too."""
    store.mkdir(exist_ok=True)
    lock = os.open(store / "show.lock", os.O_RDWR | os.O_CREAT)
    try:
        _lock_or_stop(lock, store)
        yield lock
    finally:
        os.close(lock)


def _lock_or_stop(lock: int, store: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ShowStopped(f"Another demo uses {_short(store)}. Wait for it, or stop it.") from None


def _prepare(store: Path) -> None:
    print(f"NATS        {server_url(store)}, store in {_short(store)}")
    call_command("migrate", verbosity=0)
    for model in _TABLES:
        model.objects.all().delete()
    asyncio.run(_make_streams_anew())
    print("Set-up      database migrated and emptied, streams recreated")


async def _make_streams_anew() -> None:
    async with await get_nats_client() as client:
        for name in (events.STREAM, facts.DEAD_LETTERS):
            with suppress(StreamNotFound):
                await client.jetstream().delete_stream(name)
        for operation in await TrackOrders().setup():
            await operation.execute(client)


async def _watch(orders: int, worker: Worker) -> None:
    async with await get_nats_client() as client:
        placing = asyncio.create_task(place_orders(orders, pause=_CUSTOMERS_PAUSE_SECONDS))
        try:
            await _show_until_quiet(client, Board(orders), placing, worker)
        finally:
            placing.cancel()


async def _show_until_quiet(
    client: Client, board: Board, placing: asyncio.Task[None], worker: Worker
) -> None:
    before, changed = None, time.monotonic()
    while True:
        all_placed = placing.done()
        if all_placed:
            placing.result()
        now = await facts.read(client)
        if now != before:
            before, changed = now, time.monotonic()
        if all_placed and now.is_quiet:
            board.finish(now)
            return
        board.show(now)
        _check_that_it_goes_on(worker, changed)
        await asyncio.sleep(_LOOK_SECONDS)


def _check_that_it_goes_on(worker: Worker, changed: float) -> None:
    if worker.exit_code is not None:
        why = f"The worker ended by itself with exit code {worker.exit_code}."
    elif time.monotonic() - changed > _STALL_SECONDS:
        why = f"Nothing has changed for {_STALL_SECONDS:.0f} s."
    else:
        return
    tail = "".join(f"  {line}\n" for line in worker.log.read_text().splitlines()[-12:])
    raise ShowStopped(f"{why} The end of its log, {_short(worker.log)}:\n{tail}")


async def _read_back() -> tuple[facts.Facts, Sequence[facts.DeadLetter]]:
    async with await get_nats_client() as client:
        return await facts.read(client), await facts.dead_letters(client)


def _troubles(cards: Counter[str]) -> str:
    once, twice = cards[payments.CARD_THAT_FAILS_ONCE], cards[payments.CARD_THAT_FAILS_TWICE]
    return f"{once} cards fail once, {twice} twice, 1 is stolen"


def _short(path: Path) -> str:
    return os.path.relpath(path)
