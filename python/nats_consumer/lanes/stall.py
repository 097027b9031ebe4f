"""Words about handlers that hold up their consumer: their message, and the code that runs."""

import asyncio
import logging
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from traceback import FrameSummary, StackSummary, walk_stack
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

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
# What runs handlers; the code below it is theirs.
_MACHINERY = (
    "asyncio.base_events",
    "asyncio.events",
    "asyncio.runners",
    "nats_consumer.declare.batches",
    "nats_consumer.declare.handler",
    "nats_consumer.lanes",
    "nats_consumer.lanes.blocking",
    "nats_consumer.run.dispatch",
)
# The first line is the handler's own, the last ones are where it stands.
_MOST_LINES = 4


def of_loop(about: About, loop: asyncio.AbstractEventLoop, thread: int) -> tuple[int, str]:
    """Level and text of the line of log about an event loop that does not look at its messages."""
    name, seconds = about
    follows = f"{_FOLLOWS} the loop runs again."
    if loop.is_closed():
        return logging.WARNING, f"{name}: its event loop is closed, so the consumer ends."
    if not loop.is_running():
        return logging.WARNING, f"{name}: its event loop has not run for {seconds} s. {follows}"
    place = _place(thread)
    task = asyncio.current_task(loop)
    holder, message = task.stepped() if isinstance(task, PoolTask | BatchTask) else (None, None)
    if message is not None and holder != name:
        held_up = f"{holder} holds up the event loop of both"
        return logging.WARNING, f"{name}: the handler of {held_up} for {seconds} s. {follows}"
    if message is None:
        return logging.ERROR, (
            f"{name}: code that is not a handler has held up the event loop for {seconds} s, at "
            f"{place}. {follows}"
        )
    return logging.ERROR, (
        f"{name}: the handler of {_described(message)} has held up the event loop for {seconds} s, "
        f"at {place}. {follows} Write blocking code in a plain `def`, which runs in a thread, and "
        "give what it waits for a timeout."
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
    place = f"{_described(first.message)} and is at {_place(first.thread)}"
    if is_full:
        return logging.ERROR, (
            f"{name}: none of its {len(own)} threads has been free for {seconds} s, and messages "
            f"wait. The handler that began first has {place}. {_FOLLOWS} a thread is free. Give "
            "what the handler waits for a timeout. If it may take that long, say so: set "
            "handler_timeout."
        )
    counts = Counter(each.consumer for each in running)
    holders = ", ".join(f"{consumer} ({count})" for consumer, count in counts.most_common())
    level = logging.ERROR if first.is_own else logging.WARNING
    return level, (
        f"{name}: all {len(running)} threads of this process are held by handlers of {holders}. "
        f"None has been free for {seconds} s, and messages wait. The handler that began first is "
        f"one of {first.consumer}: it has {place}. {_FOLLOWS} a thread is free. Give what that "
        f"handler waits for a timeout, give {counts.most_common(1)[0][0]} a lower concurrency, or "
        'raise NATS_CONSUMER["max_threads"].'
    )


def _described(message: "Message") -> str:
    metadata = message.metadata
    return (
        f"message {metadata.sequence.stream} of {message.subject} (stream {metadata.stream}, "
        f"attempt {message.attempt})"
    )


def _place(thread: int) -> str:
    """The lines of code that the thread is at, the outermost of the handler first."""
    frame = sys._current_frames().get(thread)
    frames = [] if frame is None else list(_own(frame))
    if not frames:
        return "a place that is not known"
    lines = StackSummary.extract(((each, each.f_lineno) for each in frames), lookup_lines=False)
    shown = lines if len(lines) <= _MOST_LINES else [lines[0], *lines[1 - _MOST_LINES :]]
    return " > ".join(_line(each) for each in shown)


def _own(frame: FrameType) -> Iterable[FrameType]:
    """The frames above those of the machinery, the outermost first; the innermost in any case."""
    frames = [each for each, _ in walk_stack(frame)][::-1]
    ours = [n for n, each in enumerate(frames) if each.f_globals.get("__name__") in _MACHINERY]
    return frames[ours[-1] + 1 if ours else 0 :] or frames[-1:]


def _line(summary: FrameSummary) -> str:
    return f"{_short(summary.filename)}:{summary.lineno} in {summary.name}"


def _short(filename: str) -> str:
    for root in _roots():
        if filename.startswith(root):
            return filename.removeprefix(root)
    return filename


def _roots() -> Iterator[str]:
    paths = sysconfig.get_paths()
    for root in (paths["purelib"], paths["stdlib"], str(Path.cwd())):
        yield f"{root}/"
