"""manage.py nats_consumer: its arguments, and how it says no."""

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from nats_consumer import JetstreamPullConsumer, JetstreamPushConsumer
from nats_consumer.declare.options import Overrides
from nats_consumer.exceptions import Unreachable
from nats_consumer.management.commands.nats_consumer import beside_consuming
from nats_consumer.run import logs, worker
from nats_consumer.run.parent import Child
from nats_consumer.run.worker import Plan


@pytest.fixture
def consumers() -> tuple[type, type]:
    """Two registered consumers."""

    class OrderConsumer(JetstreamPushConsumer):
        stream_name = "orders"
        filter_subject = "orders.*"

        async def handle_message(self, message: Any) -> None: ...

    class MailConsumer(JetstreamPullConsumer):
        stream_name = "orders"
        filter_subject = "orders.*"

        def handle_message(self, message: Any) -> None: ...

    return OrderConsumer, MailConsumer


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Collect the plans that the command gives to the worker, which then runs nothing."""
    plans: list[Plan] = []
    monkeypatch.setattr(worker, "run", plans.append)
    return plans


def test_without_names_it_runs_all(consumers: tuple[type, type], plans: list[Plan]) -> None:
    call_command("nats_consumer")
    assert plans == [
        Plan(consumers=list(consumers), shutdown_timeout=25.0, beside=beside_consuming)
    ]


def test_with_names_it_runs_those(consumers: tuple[type, type], plans: list[Plan]) -> None:
    call_command("nats_consumer", "MailConsumer")
    assert plans[0].consumers == [consumers[1]]


def test_the_log_lines_of_a_worker_beside_others_are_told_apart(
    consumers: tuple[type, type], plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(logs, "make_visible", lambda _, *, is_worker: told.append(is_worker))
    for child in (None, Child(alive=0), Child(alive=0, page=1)):
        monkeypatch.setattr(Child, "of_this_process", lambda child=child: child)
        call_command("nats_consumer")
    assert told == [False, False, True]


def test_every_option_reaches_the_worker(
    consumers: tuple[type, type], plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[str | None] = []
    monkeypatch.setattr(logs, "make_visible", lambda level, **_: levels.append(level))
    arguments = "--setup --log-level DEBUG --batch-size 50 --timeout 30 --concurrency 3"
    arguments += " --event-loop uvloop --shutdown-timeout 1.5s"
    call_command("nats_consumer", *arguments.split())
    assert levels == ["DEBUG"]
    assert plans == [
        Plan(
            consumers=list(consumers),
            setup=True,
            overrides=Overrides(batch_size=50, fetch_timeout=30.0, concurrency=3),
            shutdown_timeout=1.5,
            event_loop="uvloop",
            beside=beside_consuming,
        )
    ]


def test_the_shutdown_timeout_is_the_settings_unless_told_otherwise(
    consumers: tuple[type, type], plans: list[Plan], settings: Settings
) -> None:
    settings.NATS_CONSUMER = {"shutdown_timeout": 3}
    call_command("nats_consumer")
    assert plans[0].shutdown_timeout == 3.0


def test_one_of_two_that_share_a_durable_runs_alone_but_not_with_the_other(
    consumers: tuple[type, type], plans: list[Plan], settings: Settings
) -> None:
    settings.NATS_CONSUMER = {"default_durable_name": "my-app"}
    call_command("nats_consumer", "MailConsumer", skip_checks=False)
    assert plans[0].consumers == [consumers[1]]
    with pytest.raises(CommandError, match=r"share the durable 'my-app'.*default_durable_name"):
        call_command("nats_consumer", skip_checks=False)
    assert len(plans) == 1


def test_an_unknown_name_is_an_error_that_lists_what_there_is(
    consumers: tuple[type, type], plans: list[Plan]
) -> None:
    with pytest.raises(CommandError, match=r"no consumer 'Nobody'.*MailConsumer, OrderConsumer"):
        call_command("nats_consumer", "Nobody")
    assert plans == []


def test_no_consumer_at_all_is_an_error_that_lists_the_apps(plans: list[Plan]) -> None:
    with pytest.raises(CommandError, match=r"No consumer is registered.*tests\.project\.orders"):
        call_command("nats_consumer")
    assert plans == []


def test_a_consumer_without_handle_message_is_an_error(plans: list[Plan]) -> None:
    type("Silent", (JetstreamPushConsumer,), {"stream_name": "orders", "filter_subject": ">"})
    with pytest.raises(CommandError, match="Silent cannot run: it has no handle_message"):
        call_command("nats_consumer")
    assert plans == []


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        ("--batch-size=0", "batch_size must be a whole number, at least 1, not 0"),
        ("--concurrency=many", "concurrency must be a whole number, at least 1, not 'many'"),
        ("--timeout=0.5", "fetch_timeout must be a number of at least 1, not 0.5"),
        ("--timeout=soon", "fetch_timeout must be a number of at least 1, not 'soon'"),
        ("--shutdown-timeout=nan", "must be a number of at least 0, not nan"),
        ("--event-loop=trio", "invalid choice: 'trio'"),
        ("--log-level=LOUD", "invalid choice: 'LOUD'"),
    ],
)
def test_a_wrong_option_is_an_error_with_the_rule(
    consumers: tuple[type, type], option: str, rule: str
) -> None:
    name = option.partition("=")[0]
    with pytest.raises(CommandError, match=f"{name}: .*{rule}"):
        call_command("nats_consumer", option)


def test_a_shutdown_timeout_of_zero_is_not_the_default(
    consumers: tuple[type, type], plans: list[Plan]
) -> None:
    call_command("nats_consumer", "--shutdown-timeout=0")
    assert plans[0].shutdown_timeout == 0.0


def test_an_error_of_the_worker_ends_the_command(
    consumers: tuple[type, type], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(plan: Plan) -> None:
        raise Unreachable("no server at 127.0.0.1:1")

    monkeypatch.setattr(worker, "run", fail)
    with pytest.raises(CommandError, match=r"no server at 127\.0\.0\.1:1"):
        call_command("nats_consumer")
