"""Behaviour that projects of the older packages rely on and no other test shows."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.db import connection
from django.db.migrations import Migration

from nats_consumer import JetstreamPullConsumer, NatsConsumer, api, operations
from tests.docs.support.blocks import ROOT
from tests.live.support.project import Project
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

# What each older version wrote into the durables that it made, beside their names.
OXNATS_1 = {"ack_policy": "explicit", "deliver_policy": "all"}
OXNATS_2 = {
    **OXNATS_1,
    "max_deliver": 4,
    "ack_wait": 30_000_000_000,
    "backoff": [500_000_000, 1_000_000_000, 2_000_000_000],
}


async def make_durable(stage: Stage, name: str, config: dict[str, Any]) -> None:
    subject = f"$JS.API.CONSUMER.DURABLE.CREATE.{stage.stream}.{name}"
    request = {"stream_name": stage.stream, "config": {"durable_name": name, **config}}
    answer = await stage.client.request(subject, json.dumps(request).encode(), timeout=5)
    assert "error" not in json.loads(answer.data)


def noting(base: type[NatsConsumer], seen: list[str], **attributes: Any) -> type[NatsConsumer]:
    """A consumer that notes the payloads it gets."""

    async def handle_message(self: NatsConsumer, message: Any) -> None:
        seen.append(message.data.decode())

    return type("Orders", (base,), {"handle_message": handle_message, **attributes})


@pytest.mark.parametrize("made_by", [OXNATS_1, OXNATS_2], ids=["oxnats 1", "oxnats 2"])
@pytest.mark.parametrize("kind", ["push", "pull"])
async def test_named_durable_of_an_older_version_goes_on_where_it_stood(
    stage: Stage, kind: str, made_by: dict[str, Any]
) -> None:
    config = {**made_by, "filter_subject": f"{stage.stream}.created"}
    if kind == "push":
        config["deliver_subject"] = "billing.deliver"
    await stage.publish("old")
    # It begins behind what the older version is done with.
    config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": 2}
    await make_durable(stage, "billing", config)
    await stage.publish("new")
    seen: list[str] = []
    base = getattr(stage, kind.title())
    orders = noting(base, seen, durable_name="billing", filter_subject=f"{stage.stream}.created")
    async with running(orders):
        await becomes_true(lambda: seen)
    assert seen == ["new"]
    config = stage.server.consumer(stage.stream, "billing")["config"]
    assert "backoff" not in config
    assert config.get("max_deliver", -1) == -1


async def test_default_durable_of_version_1_is_taken_over_by_who_filters_nothing(
    stage: Stage,
) -> None:
    await stage.publish("old")
    started = {"deliver_policy": "by_start_sequence", "opt_start_seq": 2}
    pushed = {"ack_policy": "explicit", "deliver_subject": "default.deliver"}
    await make_durable(stage, "default", {**pushed, **started})
    await stage.publish("new")
    seen: list[str] = []
    async with running(noting(stage.Push, seen, filter_subject=">")):
        await becomes_true(lambda: seen)
    assert seen == ["new"]


async def test_default_durable_without_a_filter_goes_on_if_it_is_named(stage: Stage) -> None:
    await stage.publish("old")
    started = {"deliver_policy": "by_start_sequence", "opt_start_seq": 2}
    await make_durable(stage, "default", {"ack_policy": "explicit", **started})
    await stage.publish("other", event="paid")
    await stage.publish("new")
    seen: list[str] = []
    orders = noting(
        stage.Pull, seen, durable_name="default", filter_subject=f"{stage.stream}.created"
    )
    async with running(orders):
        await becomes_true(lambda: seen)
    assert seen == ["new"]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"deliver_policy": "all"}, ["1", "2", "3", "4"]),
        ({"deliver_policy": api.DeliverPolicy.ALL}, ["1", "2", "3", "4"]),
        ({"deliver_policy": "last"}, ["3", "4"]),
        ({"deliver_policy": "last_per_subject"}, ["2", "3", "4"]),
        ({"deliver_policy": "new"}, ["4"]),
        ({"deliver_policy": "by_start_sequence", "start_sequence": 2}, ["2", "3", "4"]),
        (
            {"deliver_policy": "by_start_time", "start_time": datetime(2020, 1, 1, tzinfo=UTC)},
            ["1", "2", "3", "4"],
        ),
    ],
    ids=lambda value: str(value.get("deliver_policy")) if isinstance(value, dict) else "",
)
async def test_new_durable_begins_where_deliver_policy_says(
    stage: Stage, attributes: dict[str, Any], expected: list[str]
) -> None:
    await stage.publish("1", event="created")
    await stage.publish("2", event="paid")
    await stage.publish("3", event="created")
    seen: list[str] = []
    async with running(noting(stage.Push, seen, **attributes)):
        await stage.publish("4", event="shipped")
        await becomes_true(lambda: "4" in seen)
    assert seen == expected


async def test_failing_method_of_a_handler_is_a_failed_attempt(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    from nats_consumer import ConsumerHandler

    attempts: list[int] = []

    class Handler(ConsumerHandler):
        async def handle_created(self, message: Any) -> None:
            attempts.append(message.attempt)
            if message.attempt == 1:
                raise ValueError("not yet")

    own = Handler([f"{stage.stream}.created"])

    class Orders(stage.Push):  # type: ignore[name-defined, misc]
        handler = own

        async def handle_message(self, message: Any) -> None:
            await self.handler.handle(message)

    async with running(Orders):
        await stage.publish("1")
        await stage.everything_is_settled(Orders)
    assert attempts == [1, 2]
    assert "not yet" in caplog.text


def test_debug_needs_nothing_that_is_not_installed(
    make_project: Callable[..., Project], fresh: Callable[[str], str]
) -> None:
    stream = fresh("orders")
    project = make_project(f"""
        from nats_consumer import JetstreamPullConsumer, operations

        class Orders(JetstreamPullConsumer):
            stream_name = {stream!r}
            filter_subject = ">"

            def setup(self):
                return operations.CreateStream(name={stream!r}, subjects=["{stream}.>"])

            def handle_message(self, message): ...
    """)
    settings = (project.folder / "settings.py").read_text()
    project.write("settings.py", settings + "\nDEBUG = True\n")
    for absent in ("watchfiles", "uvloop", "nats"):
        project.write(f"{absent}.py", f"raise ImportError('{absent} is not installed')")
    worker = project.consume("--setup")
    worker.wait_for("Orders: consuming")
    worker.interrupt()
    assert worker.finish() == 0, worker.output


def test_constructor_takes_what_a_subclass_passes_on() -> None:
    class Orders(JetstreamPullConsumer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.ready = True

    assert Orders(None, name="any").ready


@pytest.mark.parametrize(
    "name",
    [
        "setup_subscriptions",
        "unsubscribe",
        "subscriptions",
        "deliver_subject",
        "wrap_handle_message",
    ],
)
def test_what_ran_the_loop_of_the_older_versions_is_the_engines_now(name: str) -> None:
    """The compatibility page lists these as gone: a class that uses one finds out by name."""
    assert not hasattr(JetstreamPullConsumer, name)


@pytest.mark.parametrize(("kind", "limit"), [("Push", 1), ("Pull", 20_000)])
async def test_durable_has_the_limits_that_the_documentation_names(
    stage: Stage, kind: str, limit: int
) -> None:
    async with running(noting(getattr(stage, kind), [])):
        config = stage.server.consumer(stage.stream, "Orders")["config"]
    assert config["max_ack_pending"] == limit
    assert config["ack_wait"] == 30_000_000_000
    page = (ROOT / "docs/reference/consumer-attributes.md").read_text()
    assert f"{limit:,} ({kind.lower()})" in page


def test_command_line_that_is_wrong_ends_with_status_2(
    make_project: Callable[..., Project],
) -> None:
    assert make_project("").consume("--no-such-option").finish() == 2


def test_a_script_of_the_project_runs_a_consumer(
    make_project: Callable[..., Project], fresh: Callable[[str], str]
) -> None:
    stream = fresh("orders")
    project = make_project(f"""
        from nats_consumer import JetstreamPushConsumer, operations

        class OrderConsumer(JetstreamPushConsumer):
            stream_name = {stream!r}
            filter_subject = "{stream}.*"

            async def setup(self):
                return [operations.CreateStream(name={stream!r}, subjects=["{stream}.*"])]

            async def handle_message(self, message):
                print("handled " + message.data.decode())  # one write: the log has others
                await self.stop()
    """)
    project.write(
        "script.py",
        f"""
        import asyncio
        import django
        django.setup()
        from nats_consumer import publish
        from shop.consumers import OrderConsumer

        async def main():
            consumer = OrderConsumer()
            for operation in await consumer.setup():
                await operation.execute()
            await asyncio.to_thread(publish, "{stream}.created", "one")
            await consumer.run()

        asyncio.run(main())
        """,
    )
    script = project.run("script.py")
    assert script.finish() == 0, script.output
    assert "handled one" in script.output
    assert "Traceback" not in script.output


def test_a_missing_method_of_a_handler_is_w009(make_project: Callable[..., Project]) -> None:
    project = make_project("""
        from nats_consumer import ConsumerHandler, JetstreamPullConsumer, handle


        class Base(ConsumerHandler):
            def __init__(self):
                super().__init__(["orders.created", "orders.paid", "invoices-paid"])

            async def handle_created(self, message): ...


        class Whole(Base):
            async def handle_paid(self, message): ...


        class Marked(Base):
            @handle("*.paid", "invoices-paid")
            async def pay(self, message): ...


        class Partial(Base):
            async def handle_payd(self, message): ...


        class Wild(ConsumerHandler):
            def __init__(self):
                super().__init__(["orders.*"])


        class Given(ConsumerHandler):
            def __init__(self, subjects):
                super().__init__(subjects)


        class Broken(ConsumerHandler):
            def __init__(self):
                raise RuntimeError("there is no broker here")
    """)
    check = project.run("manage.py", "check", "--tag", "nats_consumer")
    assert check.finish() == 0, check.output
    assert "Partial has no handle_paid, which its subjects need" in check.output
    assert check.output.count("nats_consumer.W009") == 1
    assert "Wild: the wildcard 'orders.*' in the subject list has no method" in check.output
    assert check.output.count("nats_consumer.W011") == 1
    assert "collision" not in check.output


def test_the_names_of_the_earlier_packages_can_be_imported() -> None:
    from nats_consumer import __version__
    from nats_consumer.consumer import NatsConsumerBase
    from nats_consumer.exceptions import ConsumerNotFound, DjangoNatsError
    from nats_consumer.migrations import NatsForwardMigration
    from nats_consumer.operations import StreamOperation

    assert __version__[0].isdecimal()
    assert issubclass(JetstreamPullConsumer, NatsConsumerBase)
    assert issubclass(ConsumerNotFound, DjangoNatsError)
    assert issubclass(NatsForwardMigration, Migration)
    assert issubclass(operations.DeleteStream, StreamOperation)


def test_an_operation_of_ones_own_needs_execute_alone(settings: Any) -> None:
    # Another test of this process may have made the test database.
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "migrate_streams_in_tests": True}

    class Announce(operations.StreamOperation):
        async def execute(self, nats_client: Any = None) -> None:
            executed.append(nats_client)

    executed: list[Any] = []
    Announce().database_forwards("shop", SimpleNamespace(connection=connection), None, None)
    assert executed == [None]


def test_an_operation_of_ones_own_without_either_method_says_what_to_write() -> None:
    class Announce(operations.StreamOperation):
        pass

    with pytest.raises(NotImplementedError, match=r"apply\(self, jetstream\)` in Announce"):
        asyncio.run(Announce().apply(cast(Any, None)))


def test_delete_stream_takes_the_name_that_older_versions_gave_it() -> None:
    assert operations.DeleteStream(stream_name="orders").name == "orders"
