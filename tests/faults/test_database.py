"""PostgreSQL is restarted, and its connections are ended, under sync and async handlers."""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.faults.support.postgres import TABLE, Postgres
from tests.faults.support.stage import Stage

CONSUMERS = ("PulledInThreads", "Pulled")
CONCURRENCY = 5
DOWN_SECONDS = 6.0
END_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = "
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def postgres(postgres: Postgres) -> Postgres:
    """With the table that the handlers write to."""
    postgres.query(TABLE)
    return postgres


def end_its_connections(postgres: Postgres) -> None:
    postgres.query(f"{END_ALL} 'client backend' AND pid <> pg_backend_pid()")


@pytest.mark.parametrize("harm", [Postgres.restart, end_its_connections])
@pytest.mark.parametrize("age", [0, None], ids=["no kept connections", "kept without limit"])
@pytest.mark.parametrize("checks", [False, True], ids=["unchecked", "health checks"])
def test_the_next_delivery_works_when_the_database_is_back(
    stage: Stage, postgres: Postgres, harm: Callable[[Postgres], None], age: object, checks: bool
) -> None:
    stage.database = postgres.settings(CONN_MAX_AGE=age, CONN_HEALTH_CHECKS=checks)
    stage.attributes |= {"concurrency": CONCURRENCY, "max_retries": 8}
    worker = stage.work(*CONSUMERS).is_ready()
    producer = stage.produce(800, rate=100)
    stage.goes_on()
    for _ in range(2):
        with stage.fault(f"database: {harm.__name__}"):
            harm(postgres)
        stage.goes_on()
    assert producer.finish(timeout=60) == 0, producer.output
    stage.settled(*CONSUMERS)
    stage.stop(worker)
    report = stage.check(*CONSUMERS, effects=effects(postgres))
    assert report.counts["dead"] == 0
    late = failures_after(stage)
    # A kept connection is found broken once, or before it is used where Django checks it.
    for consumer in CONSUMERS:
        assert late[consumer] <= (0 if age == 0 or checks else 2 * CONCURRENCY)


def test_messages_with_attempts_left_wait_for_a_database_that_is_down(
    stage: Stage, postgres: Postgres
) -> None:
    stage.database = postgres.settings(CONN_MAX_AGE=None)
    stage.attributes |= {"concurrency": CONCURRENCY, "max_retries": 30}
    worker = stage.work(*CONSUMERS).is_ready()
    producer = stage.produce(600, rate=100)
    stage.goes_on()
    with stage.fault("database: down"):
        postgres.stop()
        stage.passes(DOWN_SECONDS)
        postgres.start()
    stage.goes_on()
    assert producer.finish(timeout=60) == 0, producer.output
    stage.settled(*CONSUMERS)
    stage.stop(worker)
    report = stage.check(*CONSUMERS, effects=effects(postgres))
    assert report.counts["dead"] == 0
    assert stage.handled("FAIL")


def effects(postgres: Postgres) -> Counter[tuple[str, str]]:
    """How many rows each consumer left in the database for each order."""
    rows = postgres.query('SELECT consumer, "order", COUNT(*) FROM orders_effect GROUP BY 1, 2')
    return Counter({(consumer, order): int(count) for consumer, order, count in rows})


def failures_after(stage: Stage) -> Counter[str]:
    """By consumer: attempts that failed although nothing was wrong while they ran."""
    starts = {(each.consumer, each.seq, each.delivery): each.at for each in stage.handled("START")}
    late: Counter[str] = Counter()
    for fail in stage.handled("FAIL"):
        started = starts[fail.consumer, fail.seq, fail.delivery]
        late[fail.consumer] += not any(
            fault.began <= fail.at and started <= fault.healed for fault in stage.faults
        )
    return late
