"""The outbox: transactions of several threads, with and without it, and the relay."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from django.core.management import call_command
from django.db import connection, transaction

from contestants.ours import configure
from contestants.task import Task, ready, report, task

_WRITERS = 32


def _plain(part: Task, _number: int) -> None:
    """Two inserts of the same size as an order and its row of the outbox."""
    from contestants.ledger.models import Entry

    with transaction.atomic():
        Entry.objects.create(text=part.payload)
        Entry.objects.create(text=part.payload)


def _outbox(part: Task, number: int) -> None:
    """An order, and the message that tells of it."""
    from contestants.ledger.models import Entry
    from nats_consumer.publish import publish_on_commit

    with transaction.atomic():
        Entry.objects.create(text=part.payload)
        publish_on_commit(_subject(part, number), part.payload.encode())


def _by_writers(part: Task, write: Callable[[Task, int], None]) -> float:
    """Share the transactions among threads; return the seconds that they took."""
    start = threading.Barrier(_WRITERS + 1)

    def work(first: int) -> None:
        connection.ensure_connection()
        start.wait()
        for number in range(first, part.messages, _WRITERS):
            write(part, number)
        connection.close()

    with ThreadPoolExecutor(_WRITERS) as pool:
        writing = [pool.submit(work, first) for first in range(_WRITERS)]
        ready()
        start.wait()
        began = time.perf_counter()
        for each in writing:
            each.result()
        return time.perf_counter() - began


def _relayed(part: Task) -> float:
    """Write all rows first; return the seconds that relaying them took."""
    from nats_consumer import Outgoing, publish_many_on_commit
    from nats_consumer.contrib.outbox.relay import Relay

    payload = part.payload.encode()
    with transaction.atomic():
        publish_many_on_commit(
            Outgoing(_subject(part, number), payload) for number in range(part.messages)
        )
    relay = Relay("default")
    ready()
    began = time.perf_counter()
    while relay.published < part.messages:
        relay.relay_batch()
    seconds = time.perf_counter() - began
    relay.end()
    return seconds


def _subject(part: Task, number: int) -> str:
    # Who only writes rows has no stream.
    return f"{part.stream or 'orders'}.s{number % len(part.subjects)}.event"


def _main() -> None:
    part = task()
    configure(part.url, part.database, "nats_consumer.contrib.outbox")
    call_command("migrate", run_syncdb=True, verbosity=0)
    call_command("flush", interactive=False, verbosity=0)
    seconds = {
        "plain": lambda: _by_writers(part, _plain),
        "outbox": lambda: _by_writers(part, _outbox),
        "relay": lambda: _relayed(part),
    }[part.work]()
    report(seconds=seconds)


if __name__ == "__main__":
    _main()
