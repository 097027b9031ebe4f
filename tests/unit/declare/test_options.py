"""A consumer's attributes become ConsumerOptions."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import (
    ConsumerHandler,
    ErrorAckBehavior,
    JetstreamPullConsumer,
    JetstreamPushConsumer,
)
from nats_consumer.api import DeliverPolicy
from nats_consumer.consumer import NatsConsumer
from nats_consumer.declare import once
from nats_consumer.declare.filters import filter_of, subjects_left_out
from nats_consumer.declare.options import Overrides, consumer_options
from nats_consumer.exceptions import ConfigurationError


class Pushing(JetstreamPushConsumer):
    stream_name = "orders"
    subjects = ["orders.created", "orders.updated"]

    async def handle_message(self, message: Any) -> None: ...


class Pulling(JetstreamPullConsumer):
    stream_name = "orders"
    filter_subject = "orders.*"

    async def handle_message(self, message: Any) -> None: ...


class Blocking(JetstreamPullConsumer):
    stream_name = "orders"
    filter_subject = "orders.*"

    def handle_message(self, message: Any) -> None: ...


def declared(**attributes: Any) -> type[NatsConsumer]:
    return type("Declared", (Pulling,), attributes)


def test_a_push_consumer_handles_one_message_at_a_time() -> None:
    options = consumer_options(Pushing)
    assert (options.kind, options.concurrency) == ("push", 1)


def test_a_pull_consumer_handles_a_batch_at_a_time() -> None:
    options = consumer_options(Pulling)
    assert (options.kind, options.batch_size, options.concurrency) == ("pull", 100, 100)
    assert consumer_options(declared(batch_size=20)).concurrency == 20


def test_a_blocking_pull_consumer_has_ten_threads_unless_told_otherwise() -> None:
    assert consumer_options(Blocking).concurrency == 10
    assert consumer_options(type("Four", (Blocking,), {"concurrency": 4})).concurrency == 4
    assert consumer_options(type("Small", (Blocking,), {"batch_size": 3})).concurrency == 3


def test_the_command_line_replaces_the_attributes() -> None:
    overrides = Overrides(batch_size=50, fetch_timeout=30.0, concurrency=7)
    options = consumer_options(Pulling, overrides)
    assert (options.batch_size, options.fetch_timeout, options.concurrency) == (50, 30.0, 7)


def test_a_batch_size_of_the_command_line_is_the_concurrency_too() -> None:
    assert consumer_options(Pulling, Overrides(batch_size=50)).concurrency == 50


def test_an_idempotent_consumer_needs_the_inbox_and_a_database_that_exists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigurationError, match="database 'archive', which does not exist"):
        consumer_options(type("Archived", (Blocking,), {"idempotent": "archive"}))
    monkeypatch.setattr(once, "_inbox", None)
    with pytest.raises(ConfigurationError, match=r"contrib\.inbox' to INSTALLED_APPS"):
        consumer_options(type("Once", (Blocking,), {"idempotent": True}))


def test_an_ephemeral_consumer_begins_with_what_is_new_unless_told_otherwise() -> None:
    options = consumer_options(declared(ephemeral=True))
    assert (options.deliver_policy, options.ephemeral) == ("new", 300.0)
    assert options.durable.startswith("Declared-")
    assert not options.durable_is_derived
    cache = declared(ephemeral=True, deliver_policy="last_per_subject")
    assert consumer_options(cache).deliver_policy == "last_per_subject"


def test_an_ephemeral_consumer_needs_a_worker_that_makes_durables(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"manage_durables": False}
    with pytest.raises(ConfigurationError, match="the worker makes a durable"):
        consumer_options(declared(ephemeral=True))


def test_an_ordered_consumer_handles_one_message_at_a_time_whatever_the_command_line_says() -> None:
    ordered = declared(ordered=True, handle_error_ack_behavior=ErrorAckBehavior.NAK)
    options = consumer_options(ordered, Overrides(concurrency=7))
    assert (options.concurrency, options.max_ack_pending) == (1, 1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (Overrides(batch_size=0), "batch_size must be a whole number, at least 1"),
        (Overrides(concurrency=-1), "concurrency must be a whole number, at least 1"),
        (Overrides(fetch_timeout=0.5), "fetch_timeout must be a number of at least 1"),
    ],
)
def test_the_command_line_is_held_to_the_same_rules(overrides: Overrides, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        consumer_options(Pulling, overrides)


def test_a_filter_is_used_as_it_is() -> None:
    assert filter_of(Pulling) == ["orders.*"]
    assert filter_of(declared(filter_subject=None, filter_subjects=["a.*", "b"])) == ["a.*", "b"]


def test_without_a_filter_only_the_first_subject_arrives() -> None:
    assert filter_of(Pushing) == ["orders.created"]
    assert subjects_left_out(Pushing) == ["orders.updated"]


def test_a_subject_that_the_first_one_covers_is_not_left_out() -> None:
    consumer = declared(filter_subject=None, subjects=["orders.>", "orders.created"])
    assert subjects_left_out(consumer) == []


def test_the_methods_of_a_consumer_say_the_same() -> None:
    consumer = Pushing()
    assert consumer.get_filter_subject() == "orders.created"
    assert consumer.get_durable_name() == "Pushing"


class Deciding(JetstreamPullConsumer):
    """Says by methods, as older projects do, what others say by attributes."""

    stream_name = "orders"
    subjects = ["orders.created", "orders.updated"]

    def __init__(self) -> None:
        self.region = "eu"

    def get_durable_name(self) -> str:
        return f"{super().get_durable_name()}-{self.region}"

    def get_filter_subject(self) -> str:
        return f"orders.{self.region}.*"

    async def handle_message(self, message: Any) -> None: ...


def test_an_overridden_method_decides_the_durable_and_the_filter() -> None:
    options = consumer_options(Deciding())
    assert (options.durable, options.durable_is_derived) == ("Deciding-eu", False)
    assert options.filter_subjects == ["orders.eu.*"]
    assert subjects_left_out(Deciding()) == []


def test_a_class_whose_methods_decide_needs_no_attributes() -> None:
    consumer = type("Bare", (Deciding,), {"subjects": ()})
    assert consumer_options(consumer).stream == "orders"
    assert subjects_left_out(Deciding) == []


@pytest.mark.parametrize(
    ("method", "answer", "message"),
    [
        ("get_durable_name", "my durable", r"get_durable_name\(\) cannot contain spaces"),
        ("get_durable_name", None, r"get_durable_name\(\) must be a string"),
        ("get_filter_subject", None, "None is not a string"),
        ("get_filter_subject", "orders..x", "has an empty token"),
    ],
)
def test_a_wrong_answer_of_an_overridden_method_is_refused(
    method: str, answer: Any, message: str
) -> None:
    consumer = type("Wrong", (Deciding,), {method: lambda self: answer})()
    with pytest.raises(ConfigurationError, match=f"Wrong cannot run: .*{message}"):
        consumer_options(consumer)


def test_the_durable_is_made_from_the_class_and_said_to_be() -> None:
    options = consumer_options(Pulling)
    assert (options.durable, options.durable_is_derived) == ("Pulling", True)


def test_the_default_durable_is_used_exactly_as_given(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"default_durable_name": "my-app"}
    options = consumer_options(Pulling)
    assert (options.durable, options.durable_is_derived) == ("my-app", False)


def test_the_durable_of_the_class_goes_first(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"default_durable_name": "my-app"}
    assert consumer_options(declared(durable_name="mine")).durable == "mine"


@pytest.mark.parametrize(
    ("behavior", "word"),
    [
        (ErrorAckBehavior.ACK, "ack"),
        (ErrorAckBehavior.NAK, "nak"),
        (ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR, "nak"),
        (ErrorAckBehavior.DEAD_LETTER, "dead_letter"),
        (ErrorAckBehavior.TERM, "term"),
    ],
)
def test_the_error_behavior_is_what_follows_the_last_attempt(
    behavior: ErrorAckBehavior, word: str
) -> None:
    assert consumer_options(declared(handle_error_ack_behavior=behavior)).exhausted == word


def test_an_exhausted_message_is_handed_back_by_default() -> None:
    assert consumer_options(Pulling).exhausted == "nak"


@pytest.mark.parametrize("policy", [DeliverPolicy.LAST, "last"])
def test_the_deliver_policy_is_an_enum_or_its_text(policy: str) -> None:
    assert consumer_options(declared(deliver_policy=policy)).deliver_policy == "last"


def test_a_start_time_is_written_as_the_server_reads_it() -> None:
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    options = consumer_options(declared(deliver_policy="by_start_time", start_time=start))
    assert options.start_time == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"filter_subject": None}, "does not say what to consume"),
        ({"filter_subject": "bad subject"}, "contains a space"),
        ({"filter_subject": "orders..x"}, "empty token"),
        ({"filter_subjects": ["a"]}, "both filter_subject and filter_subjects"),
        ({"filter_subject": None, "subjects": "orders.*"}, "must be a list of subjects"),
        (
            {"filter_subject": None, "filter_subjects": ["orders.*", "a", "*.created"]},
            r"'orders\.\*' and '\*\.created' overlap",
        ),
        ({"durable_name": "my durable"}, "durable_name cannot contain spaces"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1"),
        ({"concurrency": 0}, "concurrency must be a whole number, at least 1"),
        ({"ack_wait": "30"}, "ack_wait must be a number"),
        ({"ack_wait": 0.05}, r"ack_wait must be a number of at least 0\.1"),
        ({"ack_wait": float("nan")}, "ack_wait must be a number"),
        ({"fetch_timeout": 0.5}, "fetch_timeout must be a number of at least 1"),
        ({"fetch_timeout": float("inf")}, "fetch_timeout must be a number"),
        ({"max_retry_delay": float("inf")}, "max_retry_delay must be a number"),
        ({"max_ack_pending": 0}, "max_ack_pending must be a whole number, at least 1"),
        ({"handler_timeout": 0}, "handler_timeout must be a number"),
        (
            {"handle_error_ack_behavior": "Ack"},
            "must be ErrorAckBehavior.ACK, NAK, .*, TERM, not 'Ack'",
        ),
        ({"deliver_policy": "first"}, "deliver_policy must be one of"),
        ({"deliver_policy": "by_start_time"}, "needs start_time. Set it to a datetime"),
        ({"deliver_policy": "by_start_time", "start_time": "now"}, "must be a datetime"),
        ({"idempotent": True}, "idempotent needs a plain `def handle_message`"),
        ({"idempotent": 1}, "idempotent must be True, False or the alias of a database, not 1"),
        ({"ephemeral": "yes"}, "ephemeral must be True or False, not 'yes'"),
        ({"ephemeral": True, "durable_name": "d"}, "Remove durable_name"),
        ({"ordered": 1}, "ordered must be True or False, not 1"),
        ({"ordered": True}, "choose what follows its last attempt"),
        (
            {"ordered": True, "concurrency": 1, "max_ack_pending": 1},
            "Remove concurrency and max_ack_pending",
        ),
        ({"handle_message": None}, "has no handle_message"),
        ({"kind": ""}, "Derive it from JetstreamPullConsumer or JetstreamPushConsumer"),
    ],
)
def test_a_mistake_is_refused_by_the_consumers_name(
    attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"Declared cannot run: .*{message}"):
        consumer_options(declared(**attributes))


def test_a_consumer_without_a_stream_cannot_run() -> None:
    class Streamless(JetstreamPullConsumer):
        filter_subject = "orders.*"

        async def handle_message(self, message: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="has no stream_name"):
        consumer_options(Streamless)


def test_an_idempotent_consumer_of_another_system_is_refused_by_name(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"connections": {"analytics": {}}}
    attributes = {"idempotent": True, "connection": "analytics"}
    with pytest.raises(ConfigurationError, match="idempotent needs the connection 'default'"):
        consumer_options(type("Once", (Blocking,), attributes))


def test_an_idempotent_method_for_another_system_is_refused_by_name() -> None:
    class Handler(ConsumerHandler):
        def handle_created(self, message: Any) -> None: ...

    once.mark(Handler.handle_created, None)
    consumer = type("Once", (Blocking,), {"connection": "analytics"})()
    with pytest.raises(ConfigurationError, match="idempotent needs the connection 'default'"):
        once.check_methods(consumer, Handler(["orders.created"]))
    once.check_methods(Blocking(), Handler(["orders.created"]))
