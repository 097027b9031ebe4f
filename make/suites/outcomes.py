"""A plugin for pytest: one line for each test, `passed`, `failed` or `skipped` and its name, in the
file that OUTCOMES names. A module that cannot be imported counts as one test."""

import os
from pathlib import Path

import pytest

_file = Path(os.environ["OUTCOMES"])
_PARTS = ("setup", "teardown")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The call counts; of what goes before and after it, only what went wrong."""
    if report.when not in _PARTS or report.outcome != "passed":
        _note(report.outcome, report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note a module only if its collection failed."""
    if report.failed:
        _note(report.outcome, report.nodeid)


def _note(outcome: str, name: str) -> None:
    with _file.open("a") as file:
        file.write(f"{outcome} {name.removeprefix('tests/')}\n")
