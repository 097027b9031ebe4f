"""The handlers as methods of consumer classes, for this project and for oxnats."""

import asyncio
import json
from typing import Any

from asgiref.sync import sync_to_async

from contestants.work import PAUSE, SLOW_PAUSE, note, tally

REPLAYED = "an address is missing"
_ONE_OF = 20


class Parse:
    """Parse and count."""

    async def handle_message(self, message: Any) -> None:
        json.loads(message.data)
        tally.handled += 1


class Fail:
    """Parse and count, but fail at every `every`th first attempt."""

    every = 0
    """0 is never."""
    tried = 0

    async def handle_message(self, message: Any) -> None:
        json.loads(message.data)
        if message.attempt == 1 and self.every:
            Fail.tried += 1
            if Fail.tried % self.every == 0:
                raise ValueError("this one fails")
        tally.handled += 1


class Nothing:
    """Handler that does nothing, so that only the library costs."""

    async def handle_message(self, message: Any) -> None:
        pass


class Wait:
    """Wait a millisecond, as for I/O."""

    async def handle_message(self, message: Any) -> None:
        await asyncio.sleep(PAUSE)
        tally.handled += 1


class Stamp:
    """Note how long the message was on its way."""

    async def handle_message(self, message: Any) -> None:
        note(message.data)


class Slow:
    """Wait so long that others get their turn; not counted."""

    async def handle_message(self, message: Any) -> None:
        await asyncio.sleep(SLOW_PAUSE)


class Through:
    """Call blocking code from `async def`, as one has to where `def` handlers do not exist."""

    async def handle_message(self, message: Any) -> None:
        await _blocking_nothing()


class Give:
    """Give up on each message, on one of twenty for a reason of its own."""

    async def handle_message(self, message: Any) -> None:
        from nats_consumer import DeadLetter

        tally.handled += 1
        raise DeadLetter(REPLAYED if tally.handled % _ONE_OF == 0 else "the warehouse is closed")


class Read:
    """Take the payload as bytes."""

    async def handle_message(self, message: Any) -> None:
        if message.data:
            tally.handled += 1


class InsertThrough:
    """Write a row from `async def`: Django does it in a thread of the handler."""

    async def handle_message(self, message: Any) -> None:
        from contestants.ledger.models import Entry

        await Entry.objects.acreate(text=message.data.decode())
        tally.handled += 1


class BlockingNothing:
    """Nothing, in a plain `def`."""

    def handle_message(self, message: Any) -> None:
        pass


class BlockingParse:
    """Parse and count, in a plain `def`."""

    def handle_message(self, message: Any) -> None:
        json.loads(message.data)


class BlockingInsert:
    """Write a row, in a plain `def`."""

    def handle_message(self, message: Any) -> None:
        from contestants.ledger.models import Entry

        Entry.objects.create(text=message.data.decode())


@sync_to_async
def _blocking_nothing() -> None:
    pass


ASYNC = {
    "parse": Parse,
    "fail": Fail,
    "nothing": Nothing,
    "wait": Wait,
    "slow": Slow,
    "stamp": Stamp,
    "read": Read,
    "give up": Give,
    "through": Through,
    "insert": InsertThrough,
}
BLOCKING = {"parse": BlockingParse, "nothing": BlockingNothing, "insert": BlockingInsert}
