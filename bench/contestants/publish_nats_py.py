"""Publishing with nats-py, which is what oxnats gives its users too."""

import asyncio
import time

import nats

from contestants.task import loop_factory, ready, report, task

_PART = task()
_PENDING = 4_000  # its default


async def _main() -> None:
    client = await nats.connect(_PART.url)
    js = client.jetstream(publish_async_max_pending=_PENDING)
    payload = _PART.payload.encode()
    subjects = [_PART.subjects[n % len(_PART.subjects)] for n in range(_PART.messages)]
    if _PART.work == "in turn":
        for subject in subjects:
            await js.publish(subject, payload)
    else:
        for subject in subjects:
            await js.publish_async(subject, payload, wait_stall=30)
        await js.publish_async_completed()
    await client.close()


if __name__ == "__main__":
    ready()
    began = time.perf_counter()
    with asyncio.Runner(loop_factory=loop_factory(_PART.loop)) as runner:
        runner.run(_main())
    report(seconds=time.perf_counter() - began)
