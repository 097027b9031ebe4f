"""This project, as users run it: a declared class and `manage.py nats_consumer`."""

import asyncio
import json
import os
import sys
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command

from contestants.task import Task, ready, report, task
from contestants.work import PAUSE, note, tally

_STOP_SECONDS = 1.0


def _async_class(base: type, part: Task, attributes: dict[str, Any]) -> None:
    """Declare the consumer with the `async def` handler that the task names."""

    class Parse:
        async def handle_message(self, message: Any) -> None:
            json.loads(message.data)
            tally.handled += 1

    class Nothing:
        async def handle_message(self, message: Any) -> None:
            pass

    class Wait:
        async def handle_message(self, message: Any) -> None:
            await asyncio.sleep(PAUSE)
            tally.handled += 1

    class Stamp:
        async def handle_message(self, message: Any) -> None:
            note(message.data)

    handlers = {"parse": Parse, "nothing": Nothing, "wait": Wait, "stamp": Stamp}
    type("BenchConsumer", (handlers[part.work], base), attributes)


def _sync_class(base: type, part: Task, attributes: dict[str, Any]) -> None:
    """The same with `def`."""

    class Parse:
        def handle_message(self, message: Any) -> None:
            json.loads(message.data)
            tally.handled += 1

    class Nothing:
        def handle_message(self, message: Any) -> None:
            pass

    handlers = {"parse": Parse, "nothing": Nothing}
    type("BenchConsumer", (handlers[part.work], base), attributes)


def _configure(url: str) -> None:
    settings.configure(
        INSTALLED_APPS=["nats_consumer"],
        NATS_CONSUMER={"connect_args": {"servers": [url]}},
        DATABASES={},
        USE_TZ=True,
    )
    django.setup()


def _main() -> None:
    part = task()
    _configure(part.url)
    from nats_consumer.consumer import JetstreamPullConsumer, JetstreamPushConsumer

    base = JetstreamPullConsumer if part.kind == "pull" else JetstreamPushConsumer
    options = dict(part.options)
    declare = _sync_class if options.pop("sync", False) else _async_class
    attributes = {
        "__module__": __name__,
        "stream_name": part.stream,
        "filter_subject": part.subject,
        "durable_name": part.durable,
        **options,
    }
    declare(base, part, attributes)
    ready()
    call_command(
        "nats_consumer",
        "BenchConsumer",
        event_loop=part.loop,
        log_level="WARNING",
        shutdown_timeout=_STOP_SECONDS,
    )
    report(**tally.facts())
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
