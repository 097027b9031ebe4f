"""Databases that have a table of ours, and those that take no writes."""

import sqlite3
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, OperationalError
from django.db.utils import ConnectionHandler

from nats_consumer.lanes import database
from nats_consumer.lanes.database import aliases_of, is_read_only

SQLITE = "django.db.backends.sqlite3"


def test_a_replica_is_none_of_the_databases_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    databases = {
        "default": {"ENGINE": SQLITE, "NAME": str(tmp_path / "shop")},
        "replica": {"ENGINE": SQLITE, "NAME": "copy", "TEST": {"MIRROR": "default"}},
        "archive": {"ENGINE": SQLITE, "NAME": str(tmp_path / "archive")},
    }
    monkeypatch.setattr(database, "connections", ConnectionHandler(databases))
    assert aliases_of(User) == ["default", "archive"]


@pytest.mark.django_db
def test_a_database_that_takes_no_writes_is_told_from_one_that_is_away(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "shop").close()
    url = f"file:{tmp_path / 'shop'}?mode=ro"
    replica = {"ENGINE": SQLITE, "NAME": url, "OPTIONS": {"uri": True}}
    connection = ConnectionHandler({"default": replica})["default"]
    with pytest.raises(OperationalError) as caught, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE orders (id integer)")
    connection.close()
    assert is_read_only(caught.value)
    assert not is_read_only(OperationalError("database is locked"))
    assert not is_read_only(ValueError("attempt to write a readonly database"))


def test_postgresql_and_mysql_say_by_a_code_that_they_take_no_writes() -> None:
    class PostgresError(Exception):
        sqlstate = "25006"

    error = DatabaseError("cannot execute UPDATE in a read-only transaction")
    error.__cause__ = PostgresError()
    assert is_read_only(error)
    assert is_read_only(OperationalError(1290, "running with the --read-only option"))
