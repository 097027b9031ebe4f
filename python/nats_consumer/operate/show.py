"""Plans as text and as JSON."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from nats_consumer.streams.plan import Mark, Planned

from .plans import ServerPlan

_NOUNS = {
    Mark.CREATE: "to create",
    Mark.CHANGE: "to change",
    Mark.LOSE: "to change that delete or skip messages",
    Mark.STUCK: "that cannot be made so",
    Mark.DELETE: "to delete, by --setup only",
    Mark.CODE: "that run code, by --setup only",
    Mark.UNCLAIMED: "not declared",
    Mark.KEEP: "unchanged",
}
# What a start of the workers with --setup would do, or would fail to do.
_CHANGING = (Mark.CREATE, Mark.CHANGE, Mark.LOSE, Mark.STUCK, Mark.DELETE)


def changes_anything(plans: list[ServerPlan]) -> bool:
    """Whether a start with --setup would change something, or fail."""
    return any(each.mark in _CHANGING for plan in plans for each in plan.objects)


def lines_of(plan: ServerPlan) -> Iterator[str]:
    """The plan in lines: what stays is only counted."""
    yield f"Server: {plan.server}"
    shown = [each for each in plan.objects if each.mark != Mark.KEEP or each.remark]
    for each in shown:
        yield from _lines_of_object(each)
    counts = Counter(each.mark for each in plan.objects)
    if not shown:
        yield f"Nothing to do: {counts[Mark.KEEP]} streams and durables are as declared."
    else:
        yield "Plan: " + ", ".join(
            f"{counts[mark]} {noun}" for mark, noun in _NOUNS.items() if counts[mark]
        )


def _lines_of_object(each: Planned) -> Iterator[str]:
    yield f"  {each.mark} {each.kind} {each.name}".rstrip()
    for change in each.changes:
        loses = {Mark.LOSE: " (!)", Mark.STUCK: " (x)"}.get(change.mark, "")
        is_new = each.mark == Mark.CREATE
        before = "" if is_new else f"{change.before} -> "
        if not (is_new and change.field == "name"):
            yield f"      {change.field}: {before}{change.after}{loses if not is_new else ''}"
    if each.remark:
        yield f"      {each.remark}"


def json_of(plans: list[ServerPlan]) -> dict[str, Any]:
    """The plans as JSON: the marks are those of the text."""
    return {"version": 1, "plans": [asdict(plan) for plan in plans]}
