"""README.md on a package index: its links lead to the repository, or are plain text."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
REPOSITORY = "https://example.com/repository"


@pytest.fixture
def readme(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "make"))
    return importlib.import_module("readme")


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", text)


def test_links_lead_to_the_files_of_the_released_version(readme: Any) -> None:
    text = readme.for_the_index(README, REPOSITORY, "3.0.0")
    assert [each for each in links(text) if "://" not in each] == []
    assert f"{REPOSITORY}/blob/v3.0.0/docs/guides/handlers.md#sqlite" in text
    assert f"{REPOSITORY}/tree/v3.0.0/demo)" in text


def test_without_a_repository_no_link_leads_nowhere(readme: Any) -> None:
    text = readme.for_the_index(README, None, "3.0.0")
    assert [each for each in links(text) if "://" not in each] == []
    assert "docs.nats.io" in text


def test_the_readme_of_the_repository_is_back_afterwards(
    readme: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README)
    monkeypatch.setattr(readme, "_README", copy)
    with readme.readme_for_the_index("3.0.0"):
        assert copy.read_text() != README
    assert copy.read_text() == README
