"""`make version` says what a release lacks."""

import importlib
from pathlib import Path
from typing import Any

import pytest

MAKE = Path(__file__).parents[3] / "make"
PACKAGE = {"version": "3.0.0-beta.1", "repository": "https://example.com/repository"}
PROJECT = {"classifiers": ["Development Status :: 4 - Beta"]}
CHANGELOG = "# Changelog\n\n## 3.0.0b1 (2026-12-01)\n"


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(MAKE))
    return importlib.import_module("version")


@pytest.mark.parametrize(
    ("cargo", "python"),
    [
        ("3.0.0-alpha.1", "3.0.0a1"),
        ("3.0.0-beta.2", "3.0.0b2"),
        ("3.0.0-rc.1", "3.0.0rc1"),
        ("3.0.0", "3.0.0"),
    ],
)
def test_a_version_is_written_as_python_does(version: Any, cargo: str, python: str) -> None:
    assert version.python_version(cargo) == python


def test_a_release_that_has_all_it_needs_lacks_nothing(version: Any) -> None:
    assert version.problems("v3.0.0b1", PACKAGE, PROJECT, CHANGELOG) == []


def test_a_file_that_has_another_version_is_named(version: Any, tmp_path: Path) -> None:
    lock = 'name = "nats-consumer"\nversion = "3.0.0-beta.1"\n'
    for name, text in {
        "README.md": "**Status:** beta (3.0.0b1).",
        "engine/README.md": 'nats-consumer = "3.0.0-alpha.1"',
        "Cargo.lock": lock,
        "bench/native/Cargo.lock": lock,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert version.outdated("3.0.0-beta.1", tmp_path) == ["engine/README.md"]


@pytest.mark.parametrize(
    ("tag", "package", "project", "changelog", "problem"),
    [
        ("v3.0.0b2", PACKAGE, PROJECT, CHANGELOG, "The tag is v3.0.0b2"),
        ("v3.0.0b1", {"version": "3.0.0-beta.1"}, PROJECT, CHANGELOG, "no `repository`"),
        ("v3.0.0b1", PACKAGE, {"classifiers": []}, CHANGELOG, "4 - Beta"),
        ("v3.0.0b1", PACKAGE, PROJECT, "## 3.0.0b1 (unreleased)", "CHANGELOG.md"),
    ],
)
def test_each_thing_that_a_release_lacks_is_named(
    version: Any, tag: str, package: Any, project: Any, changelog: str, problem: str
) -> None:
    [found] = version.problems(tag, package, project, changelog)
    assert problem in found
