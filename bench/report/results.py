"""The stored figures: bench/results, and the tables in docs/evidence/performance.md."""

import json
import re
from typing import Any

from harness.environments import BENCH, ROOT

from report import overview
from report.chart import chart
from report.table import table
from report.targets import target_table

_FOLDER = BENCH / "results"
_DOCUMENT = ROOT / "docs" / "evidence" / "performance.md"


def load(workload: str) -> dict[str, Any] | None:
    """The figures of an earlier run, if there are any."""
    path = _FOLDER / f"{workload}.json"
    if not path.exists():
        return None
    stored: dict[str, Any] = json.loads(path.read_text())
    return stored


def store(summary: dict[str, Any]) -> None:
    """Write the JSON, the table and the chart, and bring the document up to date."""
    _FOLDER.mkdir(exist_ok=True)
    name = summary["workload"]
    (_FOLDER / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
    (_FOLDER / f"{name}.md").write_text(table(summary))
    (_FOLDER / f"{name}.svg").write_text(chart(summary))
    picture = f"![{summary['title']}](../../bench/results/{name}.svg)"
    _update_document(name, f"{picture}\n\n{table(summary)}")
    _update_document("targets", target_table(_all_targets()))
    overview.write()


def _all_targets() -> list[dict[str, Any]]:
    stored = [json.loads(path.read_text()) for path in sorted(_FOLDER.glob("?.json"))]
    return [target for each in stored for target in each["targets"]]


def _update_document(workload: str, text: str) -> None:
    if not _DOCUMENT.exists():
        return
    begin, end = f"<!-- bench {workload} -->\n", f"<!-- /bench {workload} -->"
    section = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    document = _DOCUMENT.read_text()
    _DOCUMENT.write_text(section.sub(lambda _: begin + text + end, document))
