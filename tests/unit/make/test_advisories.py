"""Checks of the dependencies in `make lint`: nothing is passed that was not looked up."""

import importlib
from pathlib import Path
from typing import Any

import pytest

NOT_RUN = 75
MAKE = Path(__file__).parents[3] / "make"
KNOWN = {"name": "django", "version": "6.0", "vulns": []}
UNKNOWN = {"name": "ours", "skip_reason": "Dependency not found on PyPI"}
BAD = {
    "name": "old",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}],
}


@pytest.fixture
def advisories(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(MAKE))
    return importlib.import_module("advisories")


@pytest.mark.parametrize(
    ("packages", "code"),
    [
        ([KNOWN], 0),
        ([KNOWN, UNKNOWN], 0),
        ([UNKNOWN], NOT_RUN),
        ([], NOT_RUN),
        ([BAD, UNKNOWN], 1),
    ],
)
def test_a_database_that_knows_no_package_has_said_nothing(
    advisories: Any, packages: list[dict[str, Any]], code: int
) -> None:
    assert advisories.judge(packages) == code


def test_what_is_vulnerable_and_what_is_unknown_is_named(
    advisories: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    advisories.judge([KNOWN, UNKNOWN, BAD])
    printed = capsys.readouterr().out
    assert "old 1.0: PYSEC-1, fixed in 1.1" in printed
    assert "1 packages: ours" in printed
    assert "2 of 3 packages were looked up" in printed


def test_without_its_tool_a_step_is_not_run(
    advisories: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(advisories.shutil, "which", lambda _, path: None)
    assert advisories.deny() == advisories.cargo() == advisories.pip() == NOT_RUN
    printed = capsys.readouterr().out
    assert "cargo install cargo-deny" in printed
    assert "pip install --group audit" in printed
