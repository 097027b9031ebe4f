"""From results to figures: medians, ratios, and what they were measured on."""

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.environments import Environment
from harness.match import Result
from harness.tournament import Standing
from workloads import Workload

from report.targets import judged

_PER = 100_000
_QUANTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "p99.9": 0.999}


def summarise(
    workload: Workload,
    standings: Sequence[Standing],
    environments: dict[str, Environment],
    servers: dict[str, str],
) -> dict[str, Any]:
    """Return the summary that is stored as JSON."""
    rates = {
        each.contestant.name: [r.rate for r in each.results if not r.figures] for each in standings
    }
    summary: dict[str, Any] = {
        "workload": workload.name,
        "title": workload.title,
        "is_about_memory": workload.is_about_memory,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": _machine(environments, servers),
        "rounds": max((len(each.results) for each in standings), default=0),
        "contestants": [_figures(each, rates) for each in standings],
    }
    return {**summary, "targets": judged(summary)}


def _machine(environments: dict[str, Environment], servers: dict[str, str]) -> dict[str, Any]:
    """Return the facts of the machine that the figures depend on."""
    return {
        "commit": _commit(),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.release()}",
        "servers": servers,
        "versions": {name: each.versions for name, each in environments.items()},
    }


def _figures(standing: Standing, rates: dict[str, list[float]]) -> dict[str, Any]:
    contestant, results = standing.contestant, standing.results
    figures: dict[str, Any] = {"name": contestant.name, "failure": standing.failure}
    if not results:
        return figures
    if results[0].figures:
        return figures | {"figures": _own_figures(results)}
    figures |= {
        "messages": results[0].messages,
        "rate": round(statistics.median(r.rate for r in results)),
        "rates": [round(r.rate) for r in results],
        "of_limit": _ratio(rates[contestant.name], rates.get(contestant.compared_with, [])),
        "worker_cpu": _median([r.worker_cpu * _PER / r.messages for r in results]),
        "server_cpu": _median([r.server_cpu * _PER / r.messages for r in results]),
        "rss_mib": round(statistics.median(r.rss_mib for r in results)),
        **_growth(results),
    }
    return figures | _latencies(results)


def _own_figures(results: Sequence[Result]) -> dict[str, float]:
    return {name: _median([r.figures[name] for r in results]) for name in results[0].figures}


def _ratio(rates: list[float], limits: list[float]) -> float | None:
    """The median of the rounds' ratios: what disturbed a round disturbed both."""
    pairs = list(zip(rates, limits, strict=False))
    return _median([rate / limit for rate, limit in pairs]) if pairs else None


def _growth(results: Sequence[Result]) -> dict[str, float]:
    growths = [r.rss_growth_mib for r in results if r.rss_growth_mib is not None]
    return {"rss_growth_mib": _median(growths)} if growths else {}


def _latencies(results: Sequence[Result]) -> dict[str, Any]:
    """Medians over the rounds, in milliseconds."""
    each = [sorted(result.latencies_ns) for result in results if result.latencies_ns]
    if not each:
        return {}
    quantiles = {
        name: _median([one[int(share * (len(one) - 1))] / 1e6 for one in each])
        for name, share in _QUANTILES.items()
    }
    return {"latency_ms": {**quantiles, "max": _median([one[-1] / 1e6 for one in each])}}


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)


def _commit() -> str:
    """The commit that was measured; "dirty" if the checkout differs from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=8"],
        cwd=Path(__file__).parent,
        text=True,
        capture_output=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
