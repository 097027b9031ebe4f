"""Operations in Django migrations: how they are written to a file and read back."""

import asyncio
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.db import migrations as django_migrations
from django.db.migrations.writer import MigrationWriter, OperationWriter

from nats_consumer import migrations, operations
from nats_consumer.api import Placement, RetentionPolicy, StorageType
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.streams import operation

OPERATIONS = [
    operations.CreateStream(
        name="orders",
        subjects=("orders.>",),
        storage=StorageType.FILE,
        retention=RetentionPolicy.WORK_QUEUE,
        max_age=timedelta(days=1),
        duplicate_window=30,
        placement=Placement(tags=["ssd"]),
        metadata={"team": "sales"},
    ),
    operations.UpdateStream(name="orders", max_msgs=5, description=None),
    operations.CreateOrUpdateStream(name="orders", subjects=["orders.>"]),
    operations.DeleteStream("orders"),
    operations.CreateConsumer(
        stream="orders", durable_name="billing", filter_subject="orders.*", ack_wait=30
    ),
    operations.DeleteConsumer("orders", name="billing"),
    operations.CreateStream(name="clicks", using="analytics"),
    operations.DeleteStream("clicks", using="analytics"),
    operations.DeleteConsumer("clicks", "reader", using="analytics"),
]


def read_back(text: str) -> Any:
    module = ModuleType("read_back")
    exec(text, vars(module))
    return module


@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
def test_what_is_written_to_a_migration_is_the_operation(
    operation: operations.StreamOperation,
) -> None:
    text, imports = OperationWriter(operation, indentation=0).serialize()
    again = read_back("\n".join([*imports, f"again = {text.rstrip(',')}"])).again
    assert type(again) is type(operation)
    assert OperationWriter(again, indentation=0).serialize() == (text, imports)
    if config := vars(operation).get("config"):
        assert again.config.as_dict() == config.as_dict()


def test_a_whole_migration_is_written_and_read_back() -> None:
    class Migration(django_migrations.Migration):
        operations = OPERATIONS

    text = MigrationWriter(Migration("0001_streams", "shop")).as_string()
    assert "storage='file'" in text
    again = read_back(text).Migration
    assert [repr(each) for each in again.operations] == [repr(each) for each in OPERATIONS]


@pytest.mark.parametrize("name", migrations.__all__)
def test_the_module_for_migrations_has_the_same_operations(name: str) -> None:
    if name != "NatsForwardMigration":
        assert getattr(migrations, name) is getattr(operations, name)


def test_operations_are_described_for_a_plan() -> None:
    assert [each.formatted_description() for each in OPERATIONS] == [
        "+ CreateStream(name='orders')",
        "~ UpdateStream(name='orders')",
        "+ CreateOrUpdateStream(name='orders')",
        "- DeleteStream('orders')",
        "+ CreateConsumer(stream='orders', durable_name='billing')",
        "- DeleteConsumer('orders', 'billing')",
        "+ CreateStream(name='clicks', using='analytics')",
        "- DeleteStream('clicks', using='analytics')",
        "- DeleteConsumer('clicks', 'reader', using='analytics')",
    ]


def test_only_creations_can_be_undone() -> None:
    reversible = [type(each).__name__ for each in OPERATIONS if each.reversible]
    assert set(reversible) == {"CreateStream", "CreateOrUpdateStream", "CreateConsumer"}


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"stream": "orders"}, ValueError, "needs the consumer's name"),
        ({"stream": "my orders", "name": "billing"}, ValueError, "cannot contain spaces"),
        ({"stream": "orders", "durable_name": "a.b"}, ValueError, "cannot contain dots"),
        ({"durable_name": "billing"}, TypeError, "stream"),
        ({"stream": "orders", "name": "billing", "ackwait": 1}, ConfigurationError, "'ack_wait'"),
    ],
)
def test_a_mistake_is_refused_when_the_consumer_operation_is_made(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        operations.CreateConsumer(**fields)


@pytest.mark.parametrize(
    ("vendor", "test_name", "in_tests", "runs"),
    [
        ("oracle", None, False, True),
        ("oracle", None, True, False),
        ("postgresql", "shop", False, True),
        ("postgresql", None, True, False),
        ("postgresql", None, False, True),
    ],
)
def test_an_operation_runs_on_each_real_database_whatever_its_test_database_is_called(
    monkeypatch: pytest.MonkeyPatch, vendor: str, test_name: str | None, in_tests: bool, runs: bool
) -> None:
    """Django has one name for both on Oracle. For others it adds `test_` to the present name."""
    monkeypatch.setattr(operation, "is_test_run", lambda: in_tests)
    expected = "shop" if vendor == "oracle" else test_name or "test_shop"
    connection = SimpleNamespace(
        alias="default",
        vendor=vendor,
        settings_dict={"NAME": "shop", "TEST": {"NAME": test_name}},
        creation=SimpleNamespace(_get_test_db_name=lambda: expected),
    )
    assert operations.DeleteStream("orders")._is_meant(connection, "shop") is runs


def test_testserver_leaves_the_real_stream_alone_whatever_its_test_database_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It sets up no test environment."""
    monkeypatch.setattr(operation, "is_test_run", lambda: False)
    monkeypatch.setattr("sys.argv", ["manage.py", "testserver", "orders.json"])
    connection = SimpleNamespace(
        alias="default",
        vendor="postgresql",
        settings_dict={"NAME": "of_tests", "TEST": {"NAME": "of_tests"}},
    )
    assert operations.DeleteStream("orders")._is_meant(connection, "shop") is False


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


def test_a_coroutine_is_run_from_plain_code() -> None:
    assert wait_for(answer()) == 42


def test_a_coroutine_is_run_where_a_loop_runs_already() -> None:
    async def outer() -> int:
        return wait_for(answer())

    assert asyncio.run(outer()) == 42
