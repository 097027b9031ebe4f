"""An event loop without any messages: what it leaves of "concurrency / 1 ms"."""

import asyncio
import time

from contestants.task import loop_factory, ready, report, task
from contestants.work import PAUSE

_PART = task()
_AT_ONCE = _PART.options.get("concurrency", 100)


async def _sleep() -> None:
    for _ in range(_PART.messages // _AT_ONCE):
        await asyncio.sleep(PAUSE)


async def _main() -> None:
    await asyncio.gather(*(_sleep() for _ in range(_AT_ONCE)))


if __name__ == "__main__":
    ready()
    began = time.perf_counter()
    with asyncio.Runner(loop_factory=loop_factory(_PART.loop)) as runner:
        runner.run(_main())
    report(seconds=time.perf_counter() - began)
