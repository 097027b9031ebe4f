"""nats-py, the client that the Python peers are built on: the loops of its documentation."""

import asyncio

import nats
from nats.js.api import AckPolicy, ConsumerConfig

from contestants.task import run, task
from contestants.work import HANDLERS, SLOW_AT_ONCE, slow, tally

_PART = task()
_HANDLE = HANDLERS[_PART.work]
_BATCH = 1_000  # 100 is slower, 5,000 no faster
_MAX_ACK_PENDING = 20_000


async def _main() -> None:
    client = await nats.connect(_PART.url)
    js = client.jetstream()
    config = ConsumerConfig(
        durable_name=_PART.durable,
        ack_policy=AckPolicy.EXPLICIT,
        filter_subject=_PART.subject,
        max_ack_pending=_MAX_ACK_PENDING,
    )
    consuming = _pull(js, config) if _PART.kind == "pull" else _push(js, config)
    await asyncio.gather(consuming, *([_slow(js)] if _PART.beside else []))


async def _pull(js: nats.js.JetStreamContext, config: ConsumerConfig) -> None:
    await js.add_consumer(_PART.stream, config)
    subscription = await js.pull_subscribe_bind(_PART.durable, _PART.stream)
    while True:
        try:
            messages = await subscription.fetch(_BATCH, timeout=5)
        except nats.errors.TimeoutError:
            continue
        if _PART.work == "wait":
            await asyncio.gather(*map(_handle_and_ack, messages))
            continue
        for message in messages:
            await _handle_and_ack(message)


async def _push(js: nats.js.JetStreamContext, config: ConsumerConfig) -> None:
    await js.subscribe(
        _PART.subject,
        stream=_PART.stream,
        durable=_PART.durable,
        config=config,
        cb=_handle_and_ack,
        manual_ack=True,
    )
    await asyncio.Event().wait()


async def _slow(js: nats.js.JetStreamContext) -> None:
    subscription = await js.pull_subscribe("", f"{_PART.durable}-slow", _PART.beside)
    while True:
        messages = await subscription.fetch(SLOW_AT_ONCE, timeout=5)
        await asyncio.gather(*map(slow, messages))
        await asyncio.gather(*(message.ack() for message in messages))


async def _handle_and_ack(message: nats.aio.msg.Msg) -> None:
    await _HANDLE(message)
    await message.ack()


if __name__ == "__main__":
    run(_main, tally, _PART.loop)
