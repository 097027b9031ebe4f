"""oxnats 2.0.0, the direct peer: declared classes, run as its command does."""

import asyncio
import logging

import django
import nats
from django.conf import settings
from nats.js.api import AckPolicy, ConsumerConfig

from contestants.methods import ASYNC
from contestants.task import Task, run, task
from contestants.work import tally


def _consumer(part: Task, work: str, stream: str, durable: str) -> type:
    from nats_consumer.consumer import JetstreamPullConsumer, JetstreamPushConsumer

    base = JetstreamPullConsumer if part.kind == "pull" else JetstreamPushConsumer
    attributes = {
        "stream_name": stream,
        "subjects": [f"{stream}.>"],
        "filter_subject": f"{stream}.>",
        "durable_name": durable,
    }
    return type(base)(f"Bench{work}", (ASYNC[work], base), attributes)


async def _make_durable(part: Task, max_ack_pending: int) -> None:
    """The durable that it would make, with a limit that it cannot be told."""
    client = await nats.connect(part.url)
    config = ConsumerConfig(
        durable_name=part.durable,
        deliver_subject=f"{part.durable}.deliver",
        filter_subject=part.subject,
        ack_policy=AckPolicy.EXPLICIT,
        max_ack_pending=max_ack_pending,
    )
    await client.jetstream().add_consumer(part.stream, config)
    await client.close()


def _main() -> None:
    part = task()
    settings.configure(
        INSTALLED_APPS=["nats_consumer"],
        NATS_CONSUMER={"connect_args": {"servers": [part.url]}},
    )
    django.setup()
    logging.disable(logging.WARNING)  # it logs a line for each batch
    consumers = [_consumer(part, part.work, part.stream, part.durable)]
    if part.beside:
        consumers.append(_consumer(part, "slow", part.beside, f"{part.durable}-slow"))

    async def consume() -> None:
        if limit := part.options.get("max_ack_pending"):
            await _make_durable(part, limit)
        await asyncio.gather(*(consumer().run() for consumer in consumers))

    run(consume, tally, part.loop)


if __name__ == "__main__":
    _main()
