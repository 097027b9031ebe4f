"""A relay that is killed at a step again and again, in processes of their own:

python outbox_relay.py SETTINGS, which are JSON: databases, servers, subject, point, kills."""

import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django
from django.conf import settings

OPTIONS = json.loads(sys.argv[1])
settings.configure(
    INSTALLED_APPS=["nats_consumer", "nats_consumer.contrib.outbox"],
    DATABASES={"default": OPTIONS["database"]},
    NATS_CONSUMER={"connect_args": {"servers": OPTIONS["servers"]}},
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.db.models.functions import Now  # noqa: E402

from nats_consumer import publish_on_commit  # noqa: E402
from nats_consumer.contrib.outbox import relay  # noqa: E402
from nats_consumer.contrib.outbox import write as writing  # noqa: E402
from nats_consumer.contrib.outbox.models import OutboxMessage, RelayLease  # noqa: E402

TRANSACTIONS = 500
# The method of the relay after which it is killed.
POINTS = {"read": "_read", "published": "_publish", "deleted": "_delete"}
# Each kill after a deletion leaves rows for the next one.
relay.BATCH = 7


def main() -> None:
    """Write, kill, then relay the rest. Without an error, no row is left."""
    call_command("migrate", verbosity=0)
    # A nudge would start the engine, whose threads a process that forks may not have.
    writing.Nudge.__call__ = lambda nudge: None
    write()
    for number in range(OPTIONS["kills"]):
        status = in_a_child(lambda: relay_until_killed(POINTS[OPTIONS["point"]]))
        assert os.WTERMSIG(status) == signal.SIGKILL, f"child {number}: status {status}"
        RelayLease.objects.update(until=Now() - timedelta(seconds=1))
    assert in_a_child(relay_all) == 0
    assert not OutboxMessage.objects.exists()


def write() -> None:
    """One message a transaction; every fifth is rolled back."""
    for number in range(TRANSACTIONS):
        with transaction.atomic():
            publish_on_commit(OPTIONS["subject"], str(number), key=str(number % 3))
            transaction.set_rollback(number % 5 == 0)


def in_a_child(work: Callable[[], Any]) -> int:
    connection.close()
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def relay_until_killed(method: str) -> None:
    step = getattr(relay.Relay, method)

    def then_die(*arguments: Any) -> Any:
        result = step(*arguments)
        if result != []:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(relay.Relay, method, then_die)
    relay_all()


def relay_all() -> None:
    ours = relay.Relay("default")
    while ours.relay_batch():
        pass
    ours.end()


main()
