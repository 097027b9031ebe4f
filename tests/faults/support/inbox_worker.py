"""A worker that is killed at a step again and again, in processes of their own:

python inbox_worker.py SETTINGS, which are JSON: database, servers, stream, point, kills, seed, and
whether the consumer is idempotent. It prints how many effects each message had."""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings

OPTIONS = json.loads(sys.argv[1])
settings.configure(
    INSTALLED_APPS=[
        "nats_consumer",
        "nats_consumer.contrib.outbox",
        "nats_consumer.contrib.inbox",
    ],
    DATABASES={"default": OPTIONS["database"]},
    NATS_CONSUMER={"connect_args": {"servers": OPTIONS["servers"]}},
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402

from nats_consumer import (  # noqa: E402
    ErrorAckBehavior,
    JetstreamPullConsumer,
    get_nats_client,
    publish_on_commit,
)
from nats_consumer.contrib.inbox import consumer as inbox  # noqa: E402
from nats_consumer.contrib.inbox import transaction as once  # noqa: E402
from nats_consumer.contrib.outbox import relay  # noqa: E402

STREAM = OPTIONS["stream"]
POINT = OPTIONS["point"]
# A message in hand runs again when its worker is lost; a kill takes about this long.
ACK_WAIT = 0.4


class Booking(JetstreamPullConsumer):
    """One effect and one message for each order. The next one comes when the server has the ack."""

    stream_name = STREAM
    filter_subject = f"{STREAM}.paid"
    idempotent = OPTIONS["idempotent"]
    ordered = True
    handle_error_ack_behavior = ErrorAckBehavior.NAK
    max_retries = 1000
    initial_retry_delay = max_retry_delay = 0.05
    ack_wait = ACK_WAIT

    def handle_message(self, message: Any) -> None:
        """Write both."""
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO effect VALUES (%s)", [int(message.data)])
            publish_on_commit(f"{STREAM}.booked", message.data)
        passes("handled" if self.idempotent else "committed")


class _Killer:
    """Kills the process when it passes the point for the last time."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.has_handled = False

    def passes(self, point: str) -> None:
        if self.left is None or point != POINT:
            return
        self.left -= 1
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


killer = _Killer()
passes = killer.passes


def main() -> None:
    """Kill, then handle the rest, and relay."""
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE effect (number integer)")
    watch_the_steps()
    dice = random.Random(OPTIONS["seed"])
    for number in range(OPTIONS["kills"]):
        killer.left = dice.choice([1, 2])
        status = in_a_child(lambda: asyncio.run(work()))
        assert os.WTERMSIG(status) == signal.SIGKILL, f"child {number}: status {status}"
    killer.left = None
    assert in_a_child(lambda: asyncio.run(work())) == 0
    assert in_a_child(relay_all) == 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT number, COUNT(*) FROM effect GROUP BY number")
        sys.stdout.write(json.dumps(dict(cursor.fetchall())))


def watch_the_steps() -> None:
    """Have the steps of the inbox pass the killer."""
    note, handle = once.note, inbox.handle

    def noted(*arguments: Any) -> bool:
        passes("taken")
        is_new = note(*arguments)
        passes("inserted")
        return is_new

    def handled(*arguments: Any, **options: Any) -> Any:
        if killer.has_handled:
            passes("acked")
        answer = handle(*arguments, **options)
        passes("committed")
        killer.has_handled = True
        return answer

    once.note, inbox.handle = noted, handled  # type: ignore[assignment]


async def work() -> None:
    """Consume until everything is settled."""
    consumer = Booking()
    await consumer.start()
    async with await get_nats_client() as client:
        js = client.jetstream()

        async def is_done() -> bool:
            info = await js.consumer_info(STREAM, "Booking")
            return not info.num_pending and not info.num_ack_pending

        while not await is_done():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.05)
    await consumer.stop()


def relay_all() -> None:
    """Publish the rows of the outbox."""
    ours = relay.Relay("default")
    while ours.relay_batch():
        pass
    ours.end()


def in_a_child(work: Callable[[], Any]) -> int:
    """Run it in a process that forks from this one; returns the status."""
    connection.close()
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitpid(pid, 0)[1]


main()
