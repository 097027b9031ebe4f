"""`make semver` passes no interface that was not compared."""

import importlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

NOT_RUN = 75
MAKE = Path(__file__).parents[3] / "make"


@pytest.fixture
def semver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The script, in an empty repository."""
    monkeypatch.syspath_prepend(str(MAKE))
    script = importlib.import_module("semver")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.delenv("SINCE", raising=False)
    git(tmp_path, "init", "--quiet")
    return script


def git(folder: Path, *arguments: str) -> None:
    """Run git as somebody."""
    somebody = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
    subprocess.run(["git", *somebody, *arguments], cwd=folder, check=True)


def commit(folder: Path) -> None:
    git(folder, "commit", "--quiet", "--allow-empty", "--message=one more")


def test_without_a_release_it_is_said_that_nothing_was_compared(
    semver: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(tmp_path)
    commit(tmp_path)
    git(tmp_path, "tag", "started")
    assert semver.main() == NOT_RUN
    assert "No release to compare with" in capsys.readouterr().out


def test_without_the_tool_it_is_said_that_nothing_was_compared(
    semver: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SINCE", "main")
    monkeypatch.setenv("PATH", "")
    assert semver.main() == NOT_RUN
    assert "Nothing was compared" in capsys.readouterr().out


def test_a_release_is_compared_with_the_one_before_it_and_not_with_itself(
    semver: Any, tmp_path: Path
) -> None:
    for tag in ("v1.0.0", "v1.1.0"):
        commit(tmp_path)
        git(tmp_path, "tag", tag)
    assert semver.last_release() == "v1.0.0"
    commit(tmp_path)
    assert semver.last_release() == "v1.1.0"
