"""The pages are free of the phrases that docs/style.md bans."""

import re
from pathlib import Path

import pytest

from tests.docs.support.blocks import ROOT, name_of, pages
from tests.docs.support.tables import rows

# The rows whose first cell is one phrase in backticks, and nothing else.
BANNED = [row[0][1:-1] for row in rows("style.md", "Patterns to drop") if row[0].startswith("`")]
PATTERN = re.compile("|".join(rf"\b{re.escape(each)}\b" for each in BANNED), re.IGNORECASE)
FOLDERS = (".", ".github", "bench", "demo", "engine")
CHECKED = [
    *(page for page in pages() if page != ROOT / "docs/style.md"),
    *(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md")),
]


def test_the_page_bans_something() -> None:
    assert "anew" in BANNED


@pytest.mark.parametrize("page", sorted(set(CHECKED)), ids=name_of)
def test_a_page_has_none_of_the_banned_phrases(page: Path) -> None:
    lines = enumerate(page.read_text().splitlines(), start=1)
    found = [(number, line) for number, line in lines if PATTERN.search(line)]
    assert found == []
