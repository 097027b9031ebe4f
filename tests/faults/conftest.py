"""Fixtures for the tests of faults: a stage on one server or on three.

`pytest` runs of them only those marked `faults_smoke`, and those of the harness itself;
`pytest tests/faults` runs all.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.support.mariadb import PROGRAMS as MARIADB_PROGRAMS
from tests.faults.support.mariadb import MariaDB
from tests.faults.support.mariadb import program as mariadb_program
from tests.faults.support.nodes import Cluster, Node
from tests.faults.support.pgbouncer import PgBouncer
from tests.faults.support.pgbouncer import program as pgbouncer_program
from tests.faults.support.postgres import Postgres, binaries
from tests.faults.support.proxy import Proxy
from tests.faults.support.stage import Stage
from tests.faults.support.witness import Witness

HERE = Path(__file__).parent
OF_THE_HARNESS = ("test_checker", "test_proxy")
SEED = "FAULTS_SEED"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "faults_smoke: the faults that every `make test` shows")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless this folder was asked for."""
    if any(path == HERE or HERE in path.parents for path in _asked_for(config)):
        return
    left_out = [item for item in items if _takes_long(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _asked_for(config: pytest.Config) -> list[Path]:
    invoked = config.invocation_params.dir
    return [(invoked / argument.partition("::")[0]).resolve() for argument in config.args]


def _takes_long(item: pytest.Item) -> bool:
    is_one = HERE in item.path.parents and item.path.stem not in OF_THE_HARNESS
    is_quick = item.get_closest_marker("faults_smoke") is not None and "uvloop" not in item.name
    return is_one and not is_quick


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop(request: pytest.FixtureRequest, stage: Stage) -> str:
    """A test that asks for it happens to workers on each event loop."""
    stage.event_loop = request.param
    return stage.event_loop


@pytest.fixture
def seed() -> int:
    """Return the seed of all that is random in the test; FAULTS_SEED repeats a run."""
    return int(os.environ.get(SEED) or int.from_bytes(os.urandom(4)))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """One running server."""
    node = Node(tmp_path / "node")
    node.start()
    yield node
    if node.is_running:
        node.kill()


@pytest.fixture
def make_proxy() -> Iterator[Callable[[str], Proxy]]:
    """`make_proxy(url)` is a proxy in front of the server at `url`."""
    proxies: list[Proxy] = []

    def make(url: str) -> Proxy:
        proxies.append(Proxy(url))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def proxy(make_proxy: Callable[[str], Proxy], node: Node) -> Proxy:
    """The proxy through which the workers of `stage` reach the node."""
    return make_proxy(node.url)


@pytest.fixture
def make_stage(tmp_path: Path, seed: int) -> Iterator[Callable[..., Stage]]:
    """`make_stage(witness, urls)` is a stage of its own."""
    stages: list[Stage] = []

    def make(witness: Witness, urls: list[str]) -> Stage:
        folder = tmp_path / f"stage{len(stages)}"
        folder.mkdir()
        stages.append(Stage(folder, witness, urls, seed))
        return stages[-1]

    yield make
    for stage in stages:
        stage.end()


@pytest.fixture
def stage(make_stage: Callable[..., Stage], node: Node, proxy: Proxy) -> Stage:
    """A stage on one server, reached through `proxy`."""
    stage = make_stage(Witness([node.url]), [proxy.url])
    stage.create()
    return stage


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL."""
    found = binaries()
    if found is None:
        pytest.skip(
            "PostgreSQL was not found: initdb is neither on the PATH nor in /usr/lib/postgresql"
        )
    pytest.importorskip("psycopg", reason="psycopg is not installed: `make faults` does it")
    postgres = Postgres(found)
    postgres.start()
    yield postgres
    postgres.end()


@pytest.fixture
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    """A running pooler in transaction mode, before a PostgreSQL."""
    if pgbouncer_program() is None:
        pytest.skip("PgBouncer was not found: pgbouncer is neither on the PATH nor in /usr/sbin")
    pooler = PgBouncer(postgres)
    pooler.start()
    yield pooler
    pooler.end()


@pytest.fixture
def mariadb() -> Iterator[MariaDB]:
    """A running MariaDB."""
    if not all(map(mariadb_program, MARIADB_PROGRAMS)):
        pytest.skip(f"MariaDB was not found: {' and '.join(MARIADB_PROGRAMS)} are not on the PATH")
    pytest.importorskip("pymysql", reason="PyMySQL is not installed: `make faults` does it")
    server = MariaDB()
    server.start()
    yield server
    server.end()


@pytest.fixture(params=["sqlite", "postgresql", "pgbouncer", "mariadb"])
def any_database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """An entry in Django's DATABASES, of each database in turn."""
    if request.param == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(tmp_path / "shop.sqlite3"),
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
        }
    server: Postgres | PgBouncer | MariaDB = request.getfixturevalue(
        "postgres" if request.param == "postgresql" else request.param
    )
    return server.settings()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three running servers."""
    cluster = Cluster(tmp_path / "cluster")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()
