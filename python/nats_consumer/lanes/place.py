"""The lines of the project's code that a thread is at."""

import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import dropwhile
from pathlib import Path
from traceback import FrameSummary, StackSummary, walk_stack
from types import FrameType

# What runs handlers; the code below it is theirs.
_MACHINERY = (
    "asyncio.base_events",
    "asyncio.events",
    "asyncio.runners",
    "nats_consumer.declare.arguments",
    "nats_consumer.declare.batches",
    "nats_consumer.declare.handler",
    "nats_consumer.lanes",
    "nats_consumer.lanes.blocking",
    "nats_consumer.lanes.own_thread",
    "nats_consumer.run.batch_dispatch",
    "nats_consumer.run.dispatch",
)
# The first line is the handler's own, the last ones are where it stands.
_MOST_LINES = 4


def place_of(thread: int) -> str:
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
    found = dropwhile(_is_asgiref, frames[ours[-1] + 1 if ours else 0 :])
    return [*found] or frames[-1:]


def _is_asgiref(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") == "asgiref.sync"


def _line(summary: FrameSummary) -> str:
    return f"{_short(summary.filename)}:{summary.lineno} in {summary.name}"


def _short(filename: str) -> str:
    for root in _roots():
        if filename.startswith(root):
            return filename.removeprefix(root)
    return filename


def _roots() -> Iterator[str]:
    paths = sysconfig.get_paths()
    yield f"{paths['purelib']}/"
    yield f"{paths['stdlib']}/"
    # A deploy may have removed the folder.
    with suppress(OSError):
        yield f"{Path.cwd()}/"
