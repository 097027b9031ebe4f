"""nats-jetstream, the new official client: its continuous message stream; it has no push."""

from nats.client import connect
from nats.jetstream import new

from contestants.task import run, task
from contestants.work import HANDLERS, tally

_PART = task()
_HANDLE = HANDLERS[_PART.work]
# It looks every 100 ms whether to ask for more: a smaller batch would be what is measured.
_BATCH = 10_000


async def _main() -> None:
    js = new(await connect(_PART.url))
    stream = await js.get_stream(_PART.stream)
    consumer = await stream.create_consumer(
        name=_PART.durable,
        durable_name=_PART.durable,
        ack_policy="explicit",
        filter_subject=_PART.subject,
        max_ack_pending=20_000,
    )
    async for message in await consumer.messages(max_messages=_BATCH, heartbeat=5.0):
        await _HANDLE(message)
        await message.ack()


if __name__ == "__main__":
    run(_main, tally, _PART.loop)
