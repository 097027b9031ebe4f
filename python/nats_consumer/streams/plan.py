"""Changes of a stream or a durable, before they are made: what each field was and will be, and
whether that loses messages or cannot be done."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nats_consumer.api import StreamConfig
from nats_consumer.names import covers

_SECONDS = ("max_age", "duplicate_window")

# Lowering one of these deletes what is beyond it.
_LIMITS = ("max_age", "max_msgs", "max_bytes", "max_msgs_per_subject")

# As nats-server 2.15.1 has it: never changed, and never taken back.
_FIXED = ("storage", "allow_msg_counter", "persist_mode")
_ONE_WAY = ("deny_delete", "deny_purge", "allow_msg_ttl", "allow_msg_schedules")


class Mark(StrEnum):
    """The change of an object, as a plan shows it."""

    CREATE = "+"
    CHANGE = "~"
    LOSE = "!"
    STUCK = "x"
    DELETE = "-"
    CODE = ">"
    UNCLAIMED = "?"
    KEEP = "="


@dataclass(frozen=True, kw_only=True)
class Change:
    """One field before and after, in words. `mark` is CHANGE, LOSE or STUCK."""

    field: str
    before: str
    after: str
    mark: Mark = Mark.CHANGE


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A stream, a durable or an operation, and what happens to it. `kind` is one of these words;
    `remark` says why, or what to do instead."""

    mark: Mark
    kind: str
    name: str
    changes: tuple[Change, ...] = ()
    remark: str = ""


def mark_of(changes: Sequence[Change]) -> Mark:
    """The mark of an object with these changes."""
    marks = {change.mark for change in changes}
    worst = (mark for mark in (Mark.STUCK, Mark.LOSE, Mark.CHANGE) if mark in marks)
    return next(worst, Mark.KEEP)


def stream_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """The fields that differ between two configurations of a stream, as they go over the wire."""
    old, new = map(StreamConfig.from_response, (before, after))
    written = new.as_dict()
    for name, value in written.items():
        if not is_so(value, old.as_dict().get(name)):
            yield Change(
                field=name,
                before=_text(name, getattr(old, name)),
                after=_text(name, getattr(new, name)),
                mark=_mark(name, before.get(name), value),
            )


def uncovered(subjects: Iterable[str], present: Iterable[str]) -> list[str]:
    """Those of the subjects whose messages no subject in `present` takes."""
    known = tuple(present)
    return [each for each in subjects if not any(covers(other, each) for other in known)]


def is_so(wanted: Any, found: Any) -> bool:
    """Whether the server has what was wanted. It fills in what is left out or none: a part of a
    struct, a number that is 0."""
    if isinstance(wanted, dict):
        return all(is_so(value, (found or {}).get(name)) for name, value in wanted.items())
    if isinstance(wanted, list):
        pairs = zip(wanted, found or (), strict=False)
        return len(wanted) == len(found or ()) and all(is_so(*pair) for pair in pairs)
    is_unset = not wanted or wanted in ("none", "default")
    return bool(wanted == found or (is_unset and found in (None, 0, -1)))


def _mark(name: str, before: Any, after: Any) -> Mark:
    if _is_stuck(name, before, after):
        return Mark.STUCK
    return Mark.LOSE if _loses(name, before, after) else Mark.CHANGE


def _is_stuck(name: str, before: Any, after: Any) -> bool:
    if name == "retention":
        return "workqueue" in (before, after)
    if name == "mirror":
        return bool(after)
    return name in _FIXED or (name in _ONE_WAY and bool(before))


def _loses(name: str, before: Any, after: Any) -> bool:
    if name in _LIMITS:
        return _limit(after) < _limit(before)
    if name == "subjects":
        return not all(any(covers(new, old) for new in after) for old in before or ())
    return name == "retention" and after == "interest"


def _limit(value: Any) -> float:
    return value if value and value > 0 else float("inf")


def _text(name: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if name in _LIMITS and _limit(value) == float("inf"):
        return "no limit"
    if value is None or value == "":
        return "none"
    return f"{value:g} s" if name in _SECONDS else str(value)
