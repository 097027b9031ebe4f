"""ARCHITECTURE.md lists the rings' folders and names files that exist."""

import re
from pathlib import Path

import pytest

from tests.docs.support.blocks import ROOT
from tests.docs.support.tables import spans

PAGE = (ROOT / "ARCHITECTURE.md").read_text()
RINGS = ["engine/src", "bridge/src", "python/nats_consumer"]
# The roots of the rings, which hold nothing of their own, and what the compiler makes.
BESIDE = {"__init__", "lib", "_native", "__pycache__", "py"}
# Pages that name files of the repository.
NAMING = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"docs/{folder}/{page.name}" for folder in ("decisions", "evidence") for page in
      sorted((ROOT / "docs" / folder).glob("*.md"))),
]  # fmt: skip
_PATH = re.compile(r"(?:engine|bridge|python|tests|bench|demo|make)/[\w./-]+")


def rows(ring: str) -> list[str]:
    """What the ring's table names in its first column."""
    table = PAGE.split(f"| `{ring}/` |", 1)[1].split("\n\n", 1)[0]
    return [name for line in table.splitlines()[2:] for name in spans(line.split("|")[1])]


def entries(ring: str) -> set[str]:
    """The folders and modules at the top of a ring."""
    found = {path.name.partition(".")[0] for path in (ROOT / ring).iterdir()}
    return found - BESIDE


@pytest.mark.parametrize("ring", RINGS)
def test_every_folder_and_module_of_a_ring_has_one_row(ring: str) -> None:
    named = rows(ring)
    assert len(named) == len(set(named))
    assert set(named) == entries(ring)


@pytest.mark.parametrize("page", NAMING)
def test_the_files_that_a_page_names_exist(page: str) -> None:
    named = {span for span in spans((ROOT / page).read_text()) if _PATH.fullmatch(span)}
    assert [each for each in sorted(named) if not exists(each)] == []


def exists(path: str) -> bool:
    return Path(ROOT, path).exists() or any(ROOT.glob(path))


def test_the_benchmarks_page_names_every_workload() -> None:
    table = (ROOT / "bench/README.md").read_text().split("| letter |", 1)[1].split("\n\n", 1)[0]
    named = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    workloads = (ROOT / "bench/workloads/__init__.py").read_text()
    assert named == re.findall(r'^ +name="(\w)"', workloads, re.MULTILINE)
