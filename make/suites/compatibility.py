"""`make compatibility SUITES=folder`: other projects' own tests, with this package for theirs.

The folder holds the tests of nats-py and of the older packages; they run in a temporary copy. A
test that fails must be in declared.toml, with the reason; one that is there must fail.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from steps import NOT_RUN  # noqa: E402 - make/ is no package

DECLARED = HERE / "declared.toml"
MINUTES = 15
# Not ours to judge: the tests bring everything that they need but pytest and pytest-timeout.
PLUGINS = ("cacheprovider", "django", "rerunfailures", "anyio", "xdist")
OPTIONS = ["-q", "--tb=short", "--timeout=40", *(f"-pno:{name}" for name in PLUGINS)]


@dataclass(frozen=True)
class Suite:
    """A folder of tests, and the plugin that puts this package in the place of what they test."""

    name: str
    plugin: str
    # How many of its modules run at once, where each can have a network of its own.
    modules_at_once: int = 1
    # Modules that test nothing but the inside of theirs.
    left_out: tuple[str, ...] = ()


SUITES = [
    Suite("nats-py", "nats_py_client", 3, left_out=("test_nuid.py", "test_parser.py")),
    Suite("django-nats-consumer-1.3", "older_packages"),
    Suite("oxnats-1.0", "older_packages"),
    Suite("oxnats-2.0", "older_packages"),
]


def main(folder: str) -> int:
    """Run the suites that are in the folder, say what is not as declared; return the exit code."""
    found = [suite for suite in SUITES if folder and Path(folder, suite.name).is_dir()]
    if not found:
        print(f"Nothing was run: no suite is in {folder!r}. Name their folder: SUITES=...")
        return NOT_RUN
    # All of them, then the results: what pytest prints would hide them.
    reports = [list(_report(suite, _outcomes(suite, Path(folder)))) for suite in found]
    for line in chain.from_iterable(reports):
        print(line)
    return 1 if any(len(report) > 1 for report in reports) else 0


def _report(suite: Suite, outcomes: dict[str, str]) -> Iterator[str]:
    """Print what is not as declared, and a line that counts."""
    expected, by_chance = _declared(suite), _declared(suite, by_chance=True)
    names = {
        what: {name for name, outcome in outcomes.items() if outcome == what}
        for what in ("passed", "failed", "skipped")
    }
    surprises = {
        "failed and is not declared": names["failed"] - expected,
        "is declared and passed": names["passed"] & expected - by_chance,
        "is declared and was not run": expected - outcomes.keys(),
    }
    for what, tests in surprises.items():
        yield from (f"{suite.name}: {test} {what}" for test in sorted(tests))
    yield (
        f"{suite.name}: {len(names['passed'])} passed, {len(names['failed'] & expected)} failed as "
        f"declared, {len(names['failed'] - expected)} failed, {len(names['skipped'])} skipped"
    )


@cache
def _declared(suite: Suite, by_chance: bool = False) -> frozenset[str]:
    """The tests that are expected to fail, or those of them that may pass."""
    reasons = tomllib.loads(DECLARED.read_text()).get(suite.name, [])
    meant = [each for each in reasons if not by_chance or each.get("sometimes")]
    return frozenset(test for reason in meant for test in reason["tests"])


def _outcomes(suite: Suite, folder: Path) -> dict[str, str]:
    """Return the outcome of each test. A failed one has a second try: its server may be late."""
    with tempfile.TemporaryDirectory(prefix="compatibility-") as temporary:
        copy = Path(temporary)
        shutil.copytree(folder / suite.name, copy / "tests")
        modules = sorted(
            f"tests/{path.name}"
            for path in (copy / "tests").glob("test_*.py")
            if path.name not in suite.left_out
        )
        at_once = suite.modules_at_once if _own_network() else 1
        with ThreadPoolExecutor(at_once) as pool:
            parts = list(pool.map(lambda module: _run(suite, copy, [module]), modules))
        outcomes = {name: outcome for part in parts for name, outcome in part.items()}
        expected = _declared(suite)
        late = [
            name for name, what in outcomes.items() if what == "failed" and name not in expected
        ]
        if late:
            outcomes |= _run(suite, copy, [f"tests/{name}" for name in late])
        return outcomes


def _run(suite: Suite, copy: Path, tests: list[str]) -> dict[str, str]:
    with tempfile.NamedTemporaryFile("r", suffix=".outcomes") as noted:
        environment = {
            **os.environ,
            "OUTCOMES": noted.name,
            "PYTHONPATH": os.pathsep.join([str(HERE), str(copy / "tests/server")]),
            # Beside the interpreter: the tests start `nats-server`.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        command = [sys.executable, "-m", "pytest", *OPTIONS, "-p", "outcomes", "-p", suite.plugin]
        subprocess.run(
            [*_own_network(), *command, *tests],
            cwd=copy,
            env=environment,
            timeout=MINUTES * 60,
            check=False,
        )
        found = [_read(line) for line in noted]
    # A subtest that failed is a line of its own, before that of its test.
    failed = {name: what for name, what in found if what == "failed"}
    # Whatever kept pytest from running them is a failure of the module.
    return {**dict(found), **failed} or {tests[0].removeprefix("tests/"): "failed"}


def _read(line: str) -> tuple[str, str]:
    outcome, _, name = line.strip().partition(" ")
    return name, outcome


@cache
def _own_network() -> list[str]:
    """A command that gives what follows it a network of its own, where the system allows that: the
    tests have fixed ports, which then nobody else uses."""
    command = [
        "unshare",
        "--map-root-user",
        "--net",
        "sh",
        "-c",
        'ip link set lo up && exec "$@"',
        "-",
    ]
    try:
        made = subprocess.run([*command, "true"], capture_output=True, check=False)
    except OSError:
        return []
    return command if made.returncode == 0 else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
