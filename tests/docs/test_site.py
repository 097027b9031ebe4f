"""The documentation site builds without a warning and works in a browser, wide and narrow."""

import fcntl
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.support.blocks import ROOT
from tests.docs.support.browser import PROGRAM, Browser

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("sphinx") is None,
        reason="Sphinx is not installed: pip install --group docs",
    ),
    pytest.mark.timeout(300),  # Sphinx takes ten seconds of one core
]
in_a_browser = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")

WIDE, PHONE = (1280, 900), (390, 844)
PAGES = [
    "index",
    "guides/handlers",
    "evidence/faults",
    "performance",
    "reference/api/nats_consumer",
]
# How far the page itself can be moved sideways, in pixels; tables and code scroll by themselves.
OVERFLOW = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
# The results appear one by one; the summary says when that was the last.
FOUND = """new Promise(done => {
    const look = () => {
        const summary = document.querySelector("p.search-summary")?.innerText ?? "";
        const found = [...document.querySelectorAll("ul.search li > a")].map(e => e.innerText);
        summary.includes("finished") ? done(JSON.stringify(found)) : setTimeout(look, 50);
    };
    look();
})"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of a freshly built site, without the Rust documentation: one for all of xdist's
    processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "docs" / "site"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (said := folder.parent / "said").exists():
            command = [sys.executable, "make/site.py", folder]
            built = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
            said.write_text(f"{built.stdout}{built.stderr}exit code {built.returncode}")
    assert said.read_text() == "exit code 0"
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as started:
        yield started


def test_every_page_is_built(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        built = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert (site / built.replace("README.html", "index.html")).exists(), built


def test_hidden_comments_of_the_pages_are_not_published(site: Path) -> None:
    assert [page for page in site.rglob("*.html") if "<!-- test:" in page.read_text()] == []


@in_a_browser
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_a_page_fits_the_screen(
    site: Path, browser: Browser, page: str, size: tuple[int, int]
) -> None:
    browser.size(*size)
    browser.open((site / f"{page}.html").as_uri())
    assert browser.evaluate("document.querySelector('h1').innerText")
    assert browser.evaluate(OVERFLOW) <= 0


@in_a_browser
def test_the_sidebar_has_the_order_of_the_start_page(site: Path, browser: Browser) -> None:
    browser.size(*WIDE)
    browser.open((site / "index.html").as_uri())
    captions = "[...document.querySelectorAll('.sidebar-tree .caption')].map(e => e.innerText)"
    start = (ROOT / "docs/README.md").read_text()
    headings = [line[3:] for line in start.splitlines() if line.startswith("## ")]
    shown = [each.casefold() for each in browser.evaluate(captions)]
    assert shown == [each.casefold() for each in headings]


@in_a_browser
@pytest.mark.parametrize(
    ("words", "wanted"),
    [("idempotent", "Guarantees"), ("handler_timeout", "Handlers"), ("exit code", "Deploying")],
)
def test_the_search_finds_what_users_look_for(
    site: Path, browser: Browser, words: str, wanted: str
) -> None:
    browser.open(f"{(site / 'search.html').as_uri()}?q={words}")
    found = json.loads(browser.evaluate(FOUND))
    assert any(wanted in each for each in found), found
