"""The other Pythons of the matrix get the group `test` alone: the tests import nothing else."""

import ast
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
GROUPS = PROJECT["dependency-groups"]


def installed_with(requirements: Iterable[str]) -> set[str]:
    """The distributions that pip installs for `requirements`, as far as they are installed here."""
    waiting = [Requirement(each) for each in requirements]
    found: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            waiting += [Requirement(each) for each in requires(name) or ()]
        except PackageNotFoundError:
            continue
    return found


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def beyond(paths: Iterable[Path], group: Iterable[str]) -> set[str]:
    """The imports of other distributions than those of `group` and of the package itself."""
    allowed = installed_with([*group, *PROJECT["project"]["dependencies"]])
    allowed.add(canonicalize_name(PROJECT["project"]["name"]))
    distributions = packages_distributions()
    return {
        f"{path.relative_to(CHECKOUT)}: {module}"
        for path in paths
        for module in imported(path)
        if module in distributions
        and allowed.isdisjoint(canonicalize_name(each) for each in distributions[module])
    }


def test_tests_import_only_what_their_group_installs() -> None:
    tests = CHECKOUT / "tests"
    paths = [path for path in tests.rglob("*.py") if not path.is_relative_to(tests / "faults")]
    assert not beyond(paths, GROUPS["test"])


def test_tests_of_faults_import_only_what_both_their_groups_install() -> None:
    paths = (CHECKOUT / "tests/faults").rglob("*.py")
    assert not beyond(paths, [*GROUPS["test"], *GROUPS["faults"]])


def test_an_import_from_another_group_is_found() -> None:
    assert beyond([Path(__file__)], ["pytest"]) == set()
    assert beyond([CHECKOUT / "tests/docs/test_deploy.py"], ["pytest"]) == {
        "tests/docs/test_deploy.py: yaml"
    }
