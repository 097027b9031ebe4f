"""A contestant's part: what it is told, and its dialogue with the harness."""

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from contestants.work import Tally


@dataclass(frozen=True, kw_only=True)
class Task:
    """One contestant's part in one round; the harness passes it as JSON."""

    url: str
    stream: str
    subject: str = ">"
    """What the durable filters by."""
    durable: str = ""
    kind: str = "pull"
    work: str = "nothing"
    """The name of the handler: see `contestants.work`."""
    loop: str = "asyncio"
    messages: int = 0
    """How many to publish, for a publisher."""
    bytes: int = 0
    """The size of the messages to consume."""
    subjects: list[str] = field(default_factory=list)
    payload: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    """What only this contestant understands."""
    beside: str = ""
    """A stream of slow messages to consume beside, all subjects of it, 100 at once; "" is none."""
    database: dict[str, Any] = field(default_factory=dict)
    """Django's settings of the database that handlers write to; {} is a SQLite file of its own."""


def task() -> Task:
    """The task of this process."""
    return Task(**json.loads(sys.argv[1]))


def ready() -> None:
    """Tell the harness that everything is loaded, and wait until it says go."""
    print("ready", flush=True)
    sys.stdin.readline()


def report(**facts: object) -> None:
    """The last line of a contestant: what it saw."""
    print(json.dumps(facts), flush=True)


def run(main: Callable[[], Coroutine[Any, Any, Any]], tally: Tally, loop: str = "asyncio") -> None:
    """Say ready, run `main` until SIGTERM, then report."""

    async def until_over() -> None:
        consuming = asyncio.create_task(main())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, consuming.cancel)
        try:
            await consuming
        except asyncio.CancelledError:
            report(**tally.facts())

    ready()
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(until_over())


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """How to make the event loop called `name`."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.SelectorEventLoop
