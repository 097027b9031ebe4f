"""Targets of the project, as ratios of figures of one run, and whether they were reached."""

import statistics
from dataclasses import dataclass
from typing import Any

from harness.dead_letters import REPLAY
from harness.fleets import EXISTING
from workloads.lineup import BESIDE, HUNDRED


@dataclass(frozen=True, kw_only=True)
class Target:
    """A bound for a contestant's figure, or for its ratio to another contestant's."""

    workload: str
    of: str
    """The name of the contestant."""
    bound: float
    against: str = ""
    """The name of the contestant that is compared with; "" takes the figure as it is."""
    figure: str = "rate"
    """A key of the summary, a quantile of the latencies, or a figure of an operation."""
    per: float = 1.0
    """What the figure is divided by."""
    is_limit: bool = False
    """Whether the bound is the most that is allowed, instead of the least."""
    note: str = ""


def _latency(kind: str, quantile: str, beside: str) -> Target:
    return Target(
        workload="D",
        of=f"ours {kind}{beside}",
        against=f"async-nats {kind} (Rust){beside}",
        figure=quantile,
        bound=1.2,
        is_limit=True,
    )


_PULL, _PUSH = "async-nats pull (Rust)", "async-nats push (Rust)"
_IDEAL = "of concurrency / 1 ms"
TARGETS = [
    Target(workload="A", of="ours pull", against=_PULL, bound=0.90),
    # Each on the same event loop.
    Target(workload="A", of="ours pull", against="oxnats pull, asyncio", bound=8),
    Target(workload="A", of="ours pull, uvloop", against="oxnats pull", bound=8),
    Target(workload="A", of="ours pull", against="FastStream pull", bound=20),
    Target(workload="A", of="ours push", against=_PUSH, bound=0.75),
    Target(workload="A", of="ours push", against="oxnats push, asyncio", bound=2.5),
    Target(workload="A", of="ours push, uvloop", against="oxnats push", bound=2.5),
    Target(workload="A", of="ours pull, def", against=_PULL, bound=0.5),
    Target(workload="A", of="ours push, def", against=_PUSH, bound=0.5),
    Target(workload="A", of="ours pull, a msgspec Struct", against=_PULL, bound=0.95),
    Target(workload="A", of="ours push, a msgspec Struct", against=_PUSH, bound=0.72),
    Target(workload="A", of="ours pull", figure="worker_cpu", bound=0.4, is_limit=True),
    Target(workload="C", of="ours pull", per=100_000, bound=0.95, note=_IDEAL),
    Target(workload="C", of="ours pull, concurrency 10", per=10_000, bound=0.95, note=_IDEAL),
    # What is there to be reached.
    Target(workload="C", of="ours pull", against="asyncio alone, no messages", bound=0.95),
    Target(workload="C", of="ours pull, uvloop", against="uvloop alone, no messages", bound=0.95),
    *(
        _latency(kind, quantile, beside)
        for beside in ("", BESIDE)
        for kind in ("pull", "push")
        for quantile in ("p50", "p99")
    ),
    Target(workload="E", of="ours, publish()", against="async-nats in turn (Rust)", bound=0.9),
    Target(
        workload="E", of="ours, publish_many()", against="async-nats pipelined (Rust)", bound=0.8
    ),
    *(
        Target(
            workload="F",
            of=f"ours {kind}, def, no-op",
            against="ours pull, async def with sync_to_async",
            bound=5,
        )
        for kind in ("pull", "push")
    ),
    # A cost of 10 % more.
    Target(
        workload="I", of="ours pull, 400 subjects", against="ours pull, 4 subjects", bound=1 / 1.1
    ),
    Target(
        workload="N",
        of="an insert and publish_on_commit(), 32 threads",
        against="two inserts, 32 threads",
        bound=0.8,
    ),
    Target(workload="N", of="the relay", bound=8_000, note="rows a second"),
    # By rate both reach the limit of the server, which A shows.
    Target(
        workload="O",
        of="a msgspec Struct",
        against="json.loads(message.data)",
        figure="worker_cpu",
        bound=1 / 1.1,
        is_limit=True,
    ),
    # What the prefetch holds is 32 MiB; as much again is on its way.
    *(
        Target(workload="K", of=name, figure="rss_growth_mib", bound=64, is_limit=True)
        for name in ("ours pull", "ours push, concurrency 100")
    ),
    Target(workload="M", of="ours pull", figure="rss_growth_mib", bound=5, is_limit=True),
    Target(workload="Q", of=HUNDRED, figure=EXISTING, bound=2, is_limit=True, note="s"),
    *(
        Target(workload="R", of=name, figure=REPLAY, bound=60, is_limit=True, note="s to replay")
        for name in ("ours pull", "ours push")
    ),
]

_UNITS = {"worker_cpu": "s CPU / 100,000", "rss_growth_mib": "MiB more"}


def judged(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The targets of a workload with what was reached; None where that was not measured."""
    played = {
        each["name"]: each | each.get("figures", {})
        for each in summary["contestants"]
        if "rate" in each or "figures" in each
    }
    wanted = [each for each in TARGETS if each.workload == summary["workload"]]
    return [_judged(each, played) for each in wanted]


def _judged(target: Target, played: dict[str, Any]) -> dict[str, Any]:
    value = _value(target, played)
    at_most, sign = target.is_limit, "<=" if target.is_limit else ">="
    is_reached = value is not None and (value <= target.bound if at_most else value >= target.bound)
    return {
        "workload": target.workload,
        "target": f"{target.of}: {sign} {_shown(target.bound)} {_unit(target)}",
        "reached": value,
        "is_reached": is_reached,
    }


def _unit(target: Target) -> str:
    if not target.against:
        return target.note or _UNITS[target.figure]
    what = "" if target.figure == "rate" else f"{target.figure} "
    return f"x {what}of {target.against}"


def _value(target: Target, played: dict[str, Any]) -> float | None:
    own, other = played.get(target.of), played.get(target.against)
    if own is None or (target.against and other is None):
        return None
    if other is None:
        return round(_figure(own, target.figure) / target.per, 3)
    if target.figure == "rate":  # what disturbed a round disturbed both
        pairs = zip(own["rates"], other["rates"], strict=False)
        ratios: list[float] = [mine / theirs for mine, theirs in pairs]
        return round(statistics.median(ratios), 3)
    return round(_figure(own, target.figure) / _figure(other, target.figure), 3)


def _figure(contestant: dict[str, Any], figure: str) -> float:
    value = contestant.get(figure)
    return float(contestant["latency_ms"][figure] if value is None else value)


def target_table(judgements: list[dict[str, Any]]) -> str:
    """Target and what was reached, a line each."""
    lines = ["| workload | target | reached | |", "|---|---|---:|---|"]
    for each in judgements:
        value = each["reached"]
        shown, mark = ("not measured", "") if value is None else (_shown(value), "no")
        mark = "yes" if each["is_reached"] else mark
        lines.append(f"| {each['workload']} | {each['target']} | {shown} | {mark} |")
    return "\n".join(lines) + "\n"


def _shown(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
