"""The short comparison: a table and a chart in docs/performance.md, from the stored figures."""

import json
from pathlib import Path
from typing import Any

from harness.environments import BENCH, ROOT

from report.chart import chart

_FOLDER = BENCH / "results"
_PAGE = ROOT / "docs" / "performance.md"
# What a reader knows it as, and the contestants of the workloads A and D.
_ROWS = {
    "native Rust (async-nats)": "async-nats pull (Rust)",
    "**django-nats-consumer**, `async def`": "ours pull",
    "**django-nats-consumer**, `def`": "ours pull, def",
    "nats-py, hand-written pull loop": "nats-py pull",
    "oxnats": "oxnats pull",
    "FastStream": "FastStream pull",
    "Celery on Redis, 2 processes": "Celery on Redis, 2 processes",
}
_HEAD = (
    "| | messages / s | worker CPU, s / 100,000 | worker memory, MiB | latency p50 / p99, ms |\n"
    "|---|---:|---:|---:|---:|\n"
)


def overview() -> str:
    """The table, and below it what it was measured on."""
    backlog, timed = _contestants("A"), _contestants("D")
    rows = [_row(shown, backlog[name], timed.get(name)) for shown, name in _present(backlog)]
    return _HEAD + "\n".join(rows) + "\n"


def write() -> None:
    """Write the chart to bench/results and the table into docs/performance.md."""
    backlog = _contestants("A")
    took_part = [backlog[name] for _, name in _present(backlog)]
    bars = {"contestants": took_part, "is_about_memory": False}
    (_FOLDER / "overview.svg").write_text(chart({"workload": "Backlog", **bars}))
    begin, end = "<!-- bench overview -->\n", "<!-- /bench overview -->"
    before, _, rest = _PAGE.read_text().partition(begin)
    _PAGE.write_text(before + begin + overview() + end + rest.partition(end)[2])


def _present(backlog: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows whose contestants took part."""
    return [(shown, name) for shown, name in _ROWS.items() if name in backlog]


def _contestants(workload: str) -> dict[str, dict[str, Any]]:
    stored = json.loads(Path(_FOLDER, f"{workload}.json").read_text())
    return {each["name"]: each for each in stored["contestants"] if "rate" in each}


def _row(shown: str, backlog: dict[str, Any], timed: dict[str, Any] | None) -> str:
    latency = "not measured"
    if timed:
        latency = f"{timed['latency_ms']['p50']:.2f} / {timed['latency_ms']['p99']:.2f}"
    figures = [f"{backlog['rate']:,}", f"{backlog['worker_cpu']:.2f}", f"{backlog['rss_mib']}"]
    return "| " + " | ".join([shown, *figures, latency]) + " |"
