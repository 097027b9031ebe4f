"""This project, as users run it: a declared class and `manage.py nats_consumer`."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command

from contestants.methods import ASYNC, BLOCKING
from contestants.task import Task, ready, report, task
from contestants.typed import TYPED
from contestants.work import SLOW_AT_ONCE, tally

_STOP_SECONDS = 1.0
_LOCK_SECONDS = 30


def configure(url: str, database: dict[str, Any], *apps: str) -> None:
    """Django with this project, and with more apps."""
    settings.configure(
        INSTALLED_APPS=["nats_consumer", "contestants.ledger", *apps],
        NATS_CONSUMER={"connect_args": {"servers": [url]}},
        DATABASES={"default": database},
        USE_TZ=True,
    )
    django.setup()


def _sqlite(folder: str) -> dict[str, Any]:
    """A SQLite database as one sets it up for several writers."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(Path(folder, "ledger.sqlite3")),
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": _LOCK_SECONDS,
        },
    }


def _declare(part: Task) -> list[str]:
    """Declare the consumers; returns their names."""
    handler = _routed(part.subjects) if part.work == "route" else _named(part)
    options = {name: value for name, value in part.options.items() if name != "def"}
    names = [_declared(part, "BenchConsumer", handler, options)]
    if part.beside:
        where = {"stream_name": part.beside, "filter_subject": f"{part.beside}.>"}
        more = {**where, "durable_name": f"{part.durable}-slow", "concurrency": SLOW_AT_ONCE}
        names.append(_declared(part, "SlowConsumer", ASYNC["slow"], more))
    return names


def _declared(part: Task, name: str, handler: type, options: dict[str, Any]) -> str:
    from nats_consumer.consumer import JetstreamPullConsumer, JetstreamPushConsumer

    base = JetstreamPullConsumer if part.kind == "pull" else JetstreamPushConsumer
    attributes = {
        "__module__": __name__,
        "stream_name": part.stream,
        "filter_subject": part.subject,
        "durable_name": part.durable,
        **options,
    }
    return type(name, (handler, base), attributes).__name__


def _named(part: Task) -> type:
    return (BLOCKING if part.options.get("def") else ASYNC | TYPED)[part.work]


def _routed(subjects: list[str]) -> type:
    """A consumer whose ConsumerHandler has a method for each subject."""
    from nats_consumer.handler import ConsumerHandler

    async def count(_self: Any, _message: Any) -> None:
        tally.handled += 1

    names = ["_".join(subject.split(".")[1:]) for subject in subjects]
    handler = type("Handler", (ConsumerHandler,), {f"handle_{name}": count for name in names})

    class Routed:
        def __init__(self) -> None:
            super().__init__()
            self._handler = handler(subjects)

        async def handle_message(self, message: Any) -> None:
            await self._handler.handle(message)

    return Routed


def _main() -> None:
    part = task()
    with tempfile.TemporaryDirectory(prefix="nats-bench-") as folder:
        configure(part.url, part.database or _sqlite(folder))
        names = _declare(part)
        if part.work == "insert":
            call_command("migrate", run_syncdb=True, verbosity=0)
        ready()
        call_command(
            "nats_consumer",
            *names,
            event_loop=part.loop,
            log_level="WARNING",
            shutdown_timeout=_STOP_SECONDS,
        )
        report(**tally.facts())
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
