"""Operations in Django migrations, with manage.py and a real server."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.live.support.project import Project
from tests.servers import NatsServer

MIGRATION = """
from django.db import migrations
from nats_consumer.{module} import {names}


class Migration(migrations.Migration):
    {options}
    dependencies = {dependencies!r}
    operations = [
        {operations},
    ]
"""

DATABASE = """
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"},
    "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": "other.sqlite3"},
}
"""


class Migrations:
    """A project whose app `shop` has migrations, each with operations of nats_consumer."""

    def __init__(self, project: Project, stream: str) -> None:
        self.project = project
        self.stream = stream
        self._last: str | None = None
        settings = project.folder / "settings.py"
        settings.write_text(settings.read_text() + DATABASE)
        (project.folder / "shop/migrations").mkdir()
        project.write("shop/migrations/__init__.py", "")

    def add(self, name: str, operation: str, module: str = "migrations") -> None:
        text = MIGRATION.format(
            module=module,
            names=operation.partition("(")[0],
            options="initial = True" if self._last is None else "",
            dependencies=[] if self._last is None else [("shop", self._last)],
            operations=operation.replace("STREAM", self.stream),
        )
        self.project.write(f"shop/migrations/{name}.py", text)
        self._last = name

    def manage(self, *arguments: str, code: int = 0) -> str:
        command = self.project.run("manage.py", *arguments)
        assert command.finish() == code, command.output
        return command.output


@pytest.fixture
def shop(make_project: Callable[..., Project], fresh: Callable[[str], str]) -> Migrations:
    return Migrations(make_project(), fresh("orders"))


CREATE = "CreateStream(name='STREAM', subjects=['STREAM.>'], storage='file')"


@pytest.mark.parametrize("module", ["migrations", "operations"])
def test_a_migration_creates_a_stream(
    shop: Migrations, nats_server: NatsServer, module: str
) -> None:
    shop.add("0001_streams", CREATE, module)
    shop.manage("migrate", "shop")
    assert nats_server.stream(shop.stream)["config"]["subjects"] == [f"{shop.stream}.>"]


def test_each_operation_does_what_it_says_and_may_run_again(
    shop: Migrations, nats_server: NatsServer
) -> None:
    shop.add("0001_streams", CREATE)
    shop.add("0002_age", "UpdateStream(name='STREAM', max_age=3600, duplicate_window=60)")
    shop.add("0003_size", "CreateOrUpdateStream(name='STREAM', max_msgs=5)")
    shop.add(
        "0004_billing", "CreateConsumer(stream='STREAM', durable_name='billing', ack_wait=7.5)"
    )
    for _ in range(2):
        shop.manage("migrate", "shop")
        config = nats_server.stream(shop.stream)["config"]
        assert (config["max_age"], config["duplicate_window"]) == (3600 * 10**9, 60 * 10**9)
        assert (config["max_msgs"], config["subjects"]) == (5, [f"{shop.stream}.>"])
        billing = nats_server.consumer(shop.stream, "billing")["config"]
        assert (billing["ack_wait"], billing["ack_policy"]) == (7_500_000_000, "explicit")
        # The second time as if the database were a new one.
        (shop.project.folder / "db.sqlite3").unlink()
    shop.add("0005_no_billing", "DeleteConsumer('STREAM', 'billing')")
    shop.add("0006_no_stream", "DeleteStream('STREAM')")
    shop.manage("migrate", "shop")
    assert shop.stream not in nats_server.streams()


def test_a_creation_is_undone_where_nothing_has_used_it(
    shop: Migrations, nats_server: NatsServer
) -> None:
    shop.add("0001_streams", CREATE)
    shop.add("0002_billing", "CreateConsumer(stream='STREAM', durable_name='billing')")
    shop.manage("migrate", "shop")
    shop.manage("migrate", "shop", "0001")
    assert nats_server.stream(shop.stream)["state"]["consumer_count"] == 0
    shop.manage("migrate", "shop", "zero")
    assert shop.stream not in nats_server.streams()


PUBLISH = """
import asyncio, sys
from nats_consumer import get_nats_client

async def publish():
    async with await get_nats_client() as client:
        await client.jetstream().publish(sys.argv[1], b"one")

asyncio.run(publish())
"""


def test_what_has_messages_is_kept_and_named(shop: Migrations, nats_server: NatsServer) -> None:
    shop.add("0001_streams", CREATE)
    shop.manage("migrate", "shop")
    shop.project.write("publish.py", PUBLISH)
    assert shop.project.run("publish.py", f"{shop.stream}.created").finish() == 0
    printed = shop.manage("migrate", "shop", "zero")
    assert f"Stream {shop.stream} is in use" in printed
    assert nats_server.stream(shop.stream)["state"]["messages"] == 1


@pytest.mark.parametrize("operation", ["UpdateStream(name='STREAM')", "DeleteStream('STREAM')"])
def test_what_cannot_be_undone_is_irreversible(shop: Migrations, operation: str) -> None:
    shop.add("0001_streams", operation)
    shop.manage("migrate", "shop")
    assert "IrreversibleError" in shop.manage("migrate", "shop", "zero", code=1)


def test_sqlmigrate_shows_it_and_runs_nothing(shop: Migrations, nats_server: NatsServer) -> None:
    shop.add("0001_streams", CREATE)
    printed = shop.manage("sqlmigrate", "shop", "0001")
    assert f"CreateStream(name='{shop.stream}')" in printed
    assert "CANNOT BE WRITTEN AS SQL" in printed
    assert shop.stream not in nats_server.streams()


def test_makemigrations_and_squashmigrations_know_them(
    shop: Migrations, nats_server: NatsServer
) -> None:
    shop.add("0001_streams", CREATE)
    shop.add("0002_age", "UpdateStream(name='STREAM', max_age=60, duplicate_window=60)")
    assert "No changes detected" in shop.manage("makemigrations", "--check")
    shop.manage("squashmigrations", "shop", "0002", "--noinput")
    (squashed,) = shop.project.folder.glob("shop/migrations/*squashed*.py")
    for each in ("0001_streams", "0002_age"):
        (shop.project.folder / f"shop/migrations/{each}.py").unlink()
    assert f"name='{shop.stream}'" in squashed.read_text()
    shop.manage("migrate", "shop")
    config: dict[str, Any] = nats_server.stream(shop.stream)["config"]
    assert (config["subjects"], config["max_age"]) == ([f"{shop.stream}.>"], 60 * 10**9)


def test_a_database_the_app_is_not_migrated_in_does_nothing(
    shop: Migrations, nats_server: NatsServer
) -> None:
    shop.project.write(
        "routing.py",
        """
        class Router:
            def allow_migrate(self, db, app_label, **hints):
                return db == "default"
        """,
    )
    settings = shop.project.folder / "settings.py"
    settings.write_text(settings.read_text() + 'DATABASE_ROUTERS = ["routing.Router"]\n')
    shop.add("0001_streams", CREATE)
    shop.manage("migrate", "shop", "--database", "other")
    assert shop.stream not in nats_server.streams()


def test_migrate_works_where_an_event_loop_runs_already(
    shop: Migrations, nats_server: NatsServer
) -> None:
    shop.add("0001_streams", CREATE)
    shop.project.write(
        "notebook.py",
        """
        import asyncio, os
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
        import django
        django.setup()
        from django.core.management import call_command

        async def cell():
            call_command("migrate", "shop")

        asyncio.run(cell())
        """,
    )
    command = shop.project.run("notebook.py")
    assert command.finish() == 0, command.output
    assert shop.stream in nats_server.streams()


def test_nats_consumer_itself_has_no_migrations(shop: Migrations) -> None:
    assert "nats_consumer\n (no migrations)" in shop.manage("showmigrations", "nats_consumer")


TESTING = """
from django.test import TestCase

class Orders(TestCase):
    def test_nothing(self) -> None: ...
"""


@pytest.mark.parametrize("is_wanted", [False, True])
def test_manage_py_test_leaves_the_real_stream_alone_unless_the_settings_say_otherwise(
    shop: Migrations, nats_server: NatsServer, is_wanted: bool
) -> None:
    shop.add("0001_streams", CREATE)
    shop.project.write("shop/tests.py", TESTING)
    settings = (shop.project.folder / "settings.py").read_text()
    wanted = f"NATS_CONSUMER['migrate_streams_in_tests'] = {is_wanted}"
    shop.project.write("settings.py", f"{settings}\n{wanted}\n")
    shop.manage("test", "shop")
    assert (shop.stream in nats_server.streams()) is is_wanted
