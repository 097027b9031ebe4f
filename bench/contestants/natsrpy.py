"""natsrpy, a client in Rust with a future for each message and each ack."""

import asyncio
import json
from typing import Any

from natsrpy import Nats
from natsrpy.js import AckPolicy, PullConsumerConfig, PushConsumerConfig

from contestants.task import run, task
from contestants.work import PAUSE, note, tally

_PART = task()
_BATCH = 1_000
_MAX_ACK_PENDING = 20_000


async def _main() -> None:
    nats = Nats(addrs=[_PART.url])
    await nats.startup()
    stream = await (await nats.jetstream()).streams.get(_PART.stream)
    shared: dict[str, Any] = {
        "name": _PART.durable,
        "durable_name": _PART.durable,
        "ack_policy": AckPolicy.EXPLICIT,
        "filter_subject": _PART.subject,
        "max_ack_pending": _MAX_ACK_PENDING,
    }
    if _PART.kind == "pull":
        await _pull(await stream.consumers.create(PullConsumerConfig(**shared)))
    else:
        config = PushConsumerConfig(deliver_subject=f"deliver.{_PART.durable}", **shared)
        await _push(await stream.consumers.create(config))


async def _pull(consumer: Any) -> None:
    while True:
        messages = await consumer.fetch(max_messages=_BATCH, expires=5)
        await asyncio.gather(*map(_handle, messages))


async def _push(consumer: Any) -> None:
    async with consumer.consume() as messages:
        async for message in messages:
            await _handle(message)


async def _handle(message: Any) -> None:
    if _PART.work == "parse":
        json.loads(message.payload)
        tally.handled += 1
    elif _PART.work == "stamp":
        note(message.payload)
    elif _PART.work == "wait":
        await asyncio.sleep(PAUSE)
        tally.handled += 1
    await message.ack()


if __name__ == "__main__":
    run(_main, tally, _PART.loop)
