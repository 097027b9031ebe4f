"""ARCHITECTURE.md lists the rings' folders and names files that exist."""

import re
from pathlib import Path

import pytest

from tests.docs.support.blocks import ROOT
from tests.docs.support.tables import spans

PAGE = (ROOT / "ARCHITECTURE.md").read_text()
PACKAGE = ROOT / "python/nats_consumer"
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
    """Return the names in the first column of the ring's table."""
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


def test_a_unit_test_lies_in_the_folder_of_its_module() -> None:
    unit = ROOT / "tests/unit"
    homes = {
        *(home(path.relative_to(ROOT)) for path in (ROOT / "make").glob("*.py")),
        *(home(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")),
    }
    tests = [path.relative_to(unit) for path in unit.rglob("test_*.py")]
    astray = [test for test in tests if len(test.parts) > 1 and test not in homes]
    names = {each.name for each in homes}
    at_top = [test for test in tests if test.name in names and test not in homes]
    assert [*astray, *at_top] == []


def home(module: Path) -> Path:
    """Return the path of a module's tests in tests/unit: those of a package lie in its folder."""
    name = module.parent.name if module.stem == "__init__" else module.stem
    return module.with_name(f"test_{name}.py")


@pytest.mark.parametrize("page", NAMING)
def test_the_files_that_a_page_names_exist(page: str) -> None:
    named = {span for span in spans((ROOT / page).read_text()) if _PATH.fullmatch(span)}
    assert [each for each in sorted(named) if not exists(each)] == []


def test_the_names_to_look_for_are_in_the_files_that_the_page_gives() -> None:
    table = PAGE.split("| question | file | look for |", 1)[1].split("\n\n", 1)[0]
    rows = [[spans(cell) for cell in line.split("|")[2:4]] for line in table.splitlines()[2:]]
    assert len(rows) > 10
    for [file], [name] in rows:
        *_, last = re.findall(r"\w+", name)
        kind = r"(?:fn|def|struct|class|enum)"
        assert re.search(rf"\b{kind} {last}\b", (ROOT / file).read_text()), f"{file}: {name}"


def exists(path: str) -> bool:
    return Path(ROOT, path).exists() or any(ROOT.glob(path))


def test_the_benchmarks_page_names_every_workload() -> None:
    table = (ROOT / "bench/README.md").read_text().split("| letter |", 1)[1].split("\n\n", 1)[0]
    named = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    workloads = (ROOT / "bench/workloads/__init__.py").read_text()
    assert named == re.findall(r'^ +name="(\w)"', workloads, re.MULTILINE)
