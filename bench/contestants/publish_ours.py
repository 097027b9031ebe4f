"""Publishing with this project: in turn, from async code, and many at once."""

import asyncio
import time

from contestants.ours import configure
from contestants.task import Task, ready, report, task

_AT_ONCE = 100


def _in_turn(part: Task) -> None:
    from nats_consumer.publish import publish

    payload = part.payload.encode()
    for number in range(part.messages):
        publish(_subject(part, number), payload)


async def _apublish(part: Task) -> None:
    from nats_consumer.publish import apublish

    payload = part.payload.encode()
    for first in range(0, part.messages, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, part.messages))
        await asyncio.gather(*(apublish(_subject(part, number), payload) for number in numbers))


def _many(part: Task) -> None:
    from nats_consumer.publish import publish_many

    payload = part.payload.encode()
    publish_many((_subject(part, number), payload) for number in range(part.messages))


async def _client(part: Task) -> None:
    from nats_consumer.client import get_nats_client

    payload = part.payload.encode()
    async with await get_nats_client() as client:
        js = client.jetstream()
        for number in range(part.messages):
            await js.publish(_subject(part, number), payload)


def _subject(part: Task, number: int) -> str:
    return part.subjects[number % len(part.subjects)]


def _main() -> None:
    part = task()
    configure(part.url, {})
    import nats_consumer._native

    assert nats_consumer._native.version
    ready()
    began = time.perf_counter()
    {
        "in turn": lambda: _in_turn(part),
        "client": lambda: asyncio.run(_client(part)),
        "apublish": lambda: asyncio.run(_apublish(part)),
        "many": lambda: _many(part),
    }[part.work]()
    report(seconds=time.perf_counter() - began)


if __name__ == "__main__":
    _main()
