"""Work of the handlers; the same in Rust (`native/src/work.rs`).

The functions take a message with a `data` attribute. A library whose messages look different, or
whose handlers are methods, spells them out for itself.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

PAUSE = 0.001
"""How long "wait" waits, in seconds: it stands for an answer from a database."""

SLOW_PAUSE = 0.1
"""How long the slow handlers beside a workload take, in seconds."""

SLOW_AT_ONCE = 100
"""How many of them run at once."""

STAMP_DIGITS = 19
"""The digits of a time in nanoseconds at the beginning of a stamped payload."""


@dataclass
class Tally:
    """Messages that the handlers have seen."""

    handled: int = 0
    latencies: list[int] = field(default_factory=list)
    """Nanoseconds from publishing to the handler, of stamped messages."""

    def facts(self) -> dict[str, object]:
        """The report of this process."""
        return {"handled": self.handled, "latencies_ns": self.latencies}


tally = Tally()


async def parse(message: Any) -> None:
    """Parse and count, as cheap as a useful handler gets."""
    json.loads(message.data)
    tally.handled += 1


async def nothing(_message: Any) -> None:
    """Do nothing, so that only the library costs."""


async def wait(_message: Any) -> None:
    """Wait a millisecond, as for I/O."""
    await asyncio.sleep(PAUSE)
    tally.handled += 1


async def slow(_message: Any) -> None:
    """Wait so long that others get their turn; not counted."""
    await asyncio.sleep(SLOW_PAUSE)


async def read(message: Any) -> None:
    """Take the payload as bytes."""
    if message.data:
        tally.handled += 1


async def stamp(message: Any) -> None:
    """Note how long the message was on its way."""
    note(message.data)


def note(data: bytes) -> None:
    """Note how long a stamped payload was on its way."""
    tally.latencies.append(time.time_ns() - int(data[:STAMP_DIGITS]))
    tally.handled += 1


HANDLERS = {
    "parse": parse,
    "nothing": nothing,
    "wait": wait,
    "slow": slow,
    "read": read,
    "stamp": stamp,
}
