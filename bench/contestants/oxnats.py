"""oxnats 2.0.0, the direct peer: a declared class, run as its command does."""

import logging

import django
from django.conf import settings

from contestants.methods import ASYNC
from contestants.task import Task, run, task
from contestants.work import tally


def _consumer(part: Task) -> type:
    from nats_consumer.consumer import JetstreamPullConsumer, JetstreamPushConsumer

    base = JetstreamPullConsumer if part.kind == "pull" else JetstreamPushConsumer
    attributes = {
        "stream_name": part.stream,
        "subjects": [part.subject],
        "filter_subject": part.subject,
        "durable_name": part.durable,
    }
    return type(base)("BenchConsumer", (ASYNC[part.work], base), attributes)


def _main() -> None:
    part = task()
    settings.configure(
        INSTALLED_APPS=["nats_consumer"],
        NATS_CONSUMER={"connect_args": {"servers": [part.url]}},
    )
    django.setup()
    logging.disable(logging.WARNING)  # it logs a line for each batch
    consumer = _consumer(part)
    run(lambda: consumer().run(), tally, part.loop)


if __name__ == "__main__":
    _main()
