"""oxnats 2.0.0, the direct peer: a declared class, run as its command does."""

import asyncio
import json
import logging
from typing import Any

import django
from django.conf import settings

from contestants.task import Task, run, task
from contestants.work import PAUSE, note, tally


def _handler(work: str) -> type:
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

    return {"parse": Parse, "nothing": Nothing, "wait": Wait, "stamp": Stamp}[work]


def _consumer(part: Task) -> type:
    from nats_consumer.consumer import JetstreamPullConsumer, JetstreamPushConsumer

    base = JetstreamPullConsumer if part.kind == "pull" else JetstreamPushConsumer
    attributes = {
        "stream_name": part.stream,
        "subjects": [part.subject],
        "filter_subject": part.subject,
        "durable_name": part.durable,
    }
    return type(base)("BenchConsumer", (_handler(part.work), base), attributes)


def _main() -> None:
    part = task()
    settings.configure(
        INSTALLED_APPS=["nats_consumer"],
        NATS_CONSUMER={"connect_args": {"servers": [part.url]}},
    )
    django.setup()
    logging.disable(logging.WARNING)  # it logs a line for each batch
    consumer = _consumer(part)
    run(lambda: consumer().run(**part.options), tally, part.loop)


if __name__ == "__main__":
    _main()
