"""Words about handlers that hold up their consumer: their message, and the code that runs."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nats_consumer.terminal import visible

from .place import place_of
from .pool import BatchTask, PoolTask

if TYPE_CHECKING:
    from nats_consumer._native import Message

# Consumer and seconds, as the engine gives them.
About = tuple[str, int]


class AtWork(NamedTuple):
    """A message that a handler has in a thread."""

    consumer: str
    is_own: bool
    message: "Message"
    thread: int


_FOLLOWS = "Messages that have not started are handed back, and no new ones are taken until"


def of_loop(about: About, loop: asyncio.AbstractEventLoop, thread: int) -> tuple[int, str]:
    """Level and text of the line of log about an event loop that does not look at its messages."""
    name, seconds = about
    follows = f"{_FOLLOWS} the loop runs again."
    if loop.is_closed():
        return logging.WARNING, f"{name}: its event loop is closed, so the consumer ends."
    if not loop.is_running():
        return logging.WARNING, f"{name}: its event loop has not run for {seconds} s. {follows}"
    place = place_of(thread)
    task = asyncio.current_task(loop)
    holder, message = task.stepped() if isinstance(task, PoolTask | BatchTask) else (None, None)
    if message is not None and holder != name:
        blocked = f"{holder} has blocked the event loop that both share"
        return logging.WARNING, f"{name}: a handler of {blocked} for {seconds} s. {follows}"
    if message is None:
        return logging.ERROR, (
            f"{name}: code that is not a handler has blocked the event loop for {seconds} s, at "
            f"{place}. {follows}"
        )
    return logging.ERROR, (
        f"{name}: the handler of {_described(message)} has blocked the event loop for {seconds} s, "
        f"at {place}. {follows} Write blocking code in a plain `def`, which runs in a thread, and "
        "set a timeout on the blocking call."
    )


def of_threads(
    about: About, at_work: Sequence[tuple[str, bool, "Message", int]], is_full: bool
) -> tuple[int, str]:
    """The same about a consumer with `def` handlers that waits for a thread. `is_full` says that
    its own handlers have all that it may have, else handlers have all of the process."""
    name, seconds = about
    running = [AtWork(*each) for each in at_work]
    own = [each for each in running if each.is_own]
    holding = own if is_full else running
    if not holding:
        return logging.WARNING, f"{name}: no thread was free for {seconds} s."
    first = holding[0]
    place = f"{_described(first.message)} and is at {place_of(first.thread)}"
    if is_full:
        return logging.ERROR, (
            f"{name}: none of its {len(own)} threads has been free for {seconds} s, and messages "
            f"wait. The handler that began first has {place}. {_FOLLOWS} a thread is free. Set "
            "a timeout on the blocking call. If the handler may take this long, set "
            "handler_timeout."
        )
    counts = Counter(each.consumer for each in running)
    holders = ", ".join(f"{consumer} ({count})" for consumer, count in counts.most_common())
    level = logging.ERROR if first.is_own else logging.WARNING
    return level, (
        f"{name}: all {len(running)} threads of this process are held by handlers of {holders}. "
        f"None has been free for {seconds} s, and messages wait. The handler that began first is "
        f"one of {first.consumer}: it has {place}. {_FOLLOWS} a thread is free. Set a timeout on "
        f"the blocking call, give {counts.most_common(1)[0][0]} a lower concurrency, or "
        'raise NATS_CONSUMER["max_threads"].'
    )


def of_calls(name: str, threads: Sequence[int]) -> str:
    """Text of the line of log about the threads of a consumer that are held by blocking calls of
    `async def` handlers, and each handler has ended."""
    return (
        f"{name}: all its threads ({len(threads)}) are held by blocking calls that outlast their "
        f"handlers. One of them is at {place_of(threads[0])}. {_FOLLOWS} one of them returns. Give "
        "what they wait for a timeout that is shorter than handler_timeout."
    )


def _described(message: "Message") -> str:
    place, subject = message.metadata, visible(message.subject)
    return (
        f"message {place.sequence.stream} of {subject} (stream {place.stream}, attempt "
        f"{message.attempt})"
    )
