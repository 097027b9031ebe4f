"""Every test that the documentation names exists, and every link leads somewhere."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nats_consumer import NatsConsumer
from tests.docs.support.blocks import ROOT, blocks, name_of, pages
from tests.docs.support.known import known_tests
from tests.docs.support.tables import prose, rows, spans

COMPATIBILITY = "reference/compatibility.md"
EVIDENCE = "evidence/compatibility.md"
HEADINGS = [
    "Packaging, settings, discovery",
    "Consumers",
    "Handlers",
    "The command",
    "What the recommendations imply",
    "Operations",
]
PROMISES = 92
# The pages that are no part of the documentation, but of the repository.
FOLDERS = (".", ".github", "bench", "bridge", "demo", "engine")
BESIDE = [
    page
    for folder in FOLDERS
    for page in sorted((ROOT / folder).glob("*.md"))
    if page not in pages()
]

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_NOT_SHOWN = "not yet shown"


def promises(page: str) -> Iterator[list[str]]:
    for heading in HEADINGS:
        yield from rows(page, heading)


@pytest.mark.parametrize("page", [COMPATIBILITY, EVIDENCE])
def test_every_promise_has_a_row_in_order(page: str) -> None:
    assert [int(row[0]) for row in promises(page)] == list(range(1, PROMISES + 1))


def test_every_promise_is_shown_by_a_test_or_says_that_it_is_not() -> None:
    silent = [
        row[0] for row in promises(EVIDENCE) if not spans(row[1]) and _NOT_SHOWN not in row[1]
    ]
    assert silent == []


@pytest.mark.parametrize(
    "page",
    [
        EVIDENCE,
        *(
            f"evidence/{name}.md"
            for name in ("events", "faults", "guarantees", "operating", "security")
        ),
    ],
)
def test_the_tests_that_a_page_names_exist(page: str) -> None:
    known = known_tests()
    # Names of tests are sentences: at least three words.
    named = {
        span for span in spans(prose(page)) if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+){3,}", span)
    }
    named -= set(inspect.get_annotations(NatsConsumer))
    assert named, "the page names no test"
    assert named - known == set()


@pytest.mark.parametrize("page", [*pages(), *BESIDE], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    code = {line for block in blocks(page) for line in block.text.splitlines()}
    prose = "\n".join(line for line in page.read_text().splitlines() if line not in code)
    broken = [link for link in _LINK.findall(prose) if not _leads(page, link)]
    assert broken == []


def _leads(page: Path, link: str) -> bool:
    if "://" in link:
        return True
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return False
    if not anchor:
        return True
    return anchor in {_anchor(heading) for heading in _HEADING.findall(target.read_text())}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link).resolve() for link in _LINK.findall(index.read_text())}
    wanted = {page for page in pages() if page.is_relative_to(index.parent)} - {index}
    single_decisions = {page for page in wanted if re.match(r"\d{4}-", page.name)}
    assert wanted - single_decisions - linked == set()


def test_the_index_of_decisions_leads_to_every_decision() -> None:
    index = (ROOT / "docs/decisions/README.md").read_text()
    decisions = sorted(page.name for page in (ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert [link for link in _LINK.findall(index) if "/" not in link] == decisions
