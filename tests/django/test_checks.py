"""The system checks, each with its id."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.core import checks
from django.db import transaction
from pytest_django import Settings

from nats_consumer import (
    Ack,
    ConsumerHandler,
    ErrorAckBehavior,
    JetstreamPullConsumer,
    JetstreamPushConsumer,
)
from nats_consumer.contrib.outbox.checks import check_relay


def found() -> dict[str, str]:
    """The ids of what the checks find, with the messages."""
    return {
        message.id: f"{message.msg} {message.hint or ''}"
        for message in checks.run_checks(tags=["nats_consumer"])
        if message.id
    }


class Pulling(JetstreamPullConsumer):
    """A base without a stream, so it is not registered."""

    filter_subject = "orders.*"

    async def handle_message(self, message: Any) -> None: ...


def declare(name: str, base: type = Pulling, **attributes: Any) -> None:
    type(name, (base,), {"stream_name": "orders", **attributes})


def test_a_good_consumer_passes() -> None:
    declare("OrderConsumer")
    assert found() == {}


def test_a_wrong_setting_is_e001(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"connect_args": {"server": "x"}}
    assert "Did you mean 'servers'" in found()["nats_consumer.E001"]


@pytest.mark.parametrize("servers", ["nats://me:word@a:1", ["a:1", "tls://token@b"]])
def test_credentials_in_a_url_are_w010_which_does_not_repeat_them(
    settings: Settings, servers: Any
) -> None:
    settings.NATS_CONSUMER = {"connect_args": {"servers": servers}}
    text = found()["nats_consumer.W010"]
    assert "word" not in text.replace("password", "")
    settings.NATS_CONSUMER = {"connect_args": {"servers": "a:1", "user": "me", "password": "word"}}
    assert found() == {}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"event_loop_policy": 5}, "must be a dotted path such as 'uvloop.EventLoopPolicy', not 5"),
        ({"event_loop_policy": "os.path.join"}, "os.path.join is not one"),
        ({"event_loop_policy": "decimal.Decimal"}, "decimal.Decimal is not one"),
        ({"connect_args": {"servers": []}}, "connect_args['servers'] is empty. Name a server"),
        ({"embedded_store": 5}, "must be the path of a folder, not 5"),
        ({"embedded_store": ""}, "must be the path of a folder, not ''"),
        ({"connect_args": {"servers": ["nats://a", "http://b"]}}, "entry 1: its scheme"),
        ({"connect_args": {"servers": "a:99999"}}, "entry 0: its port"),
        ({"shutdown_timeout": float("nan")}, "must be a number"),
        ({"max_threads": 0}, "max_threads"),
        ({"event_loop_policy": "uvloop"}, "must be the dotted path of an event loop policy"),
        ({"event_loop_policy": ".x"}, "must be the dotted path of an event loop policy"),
        ({"event_loop_policy": "..x"}, "must be the dotted path of an event loop policy"),
        ({"event_loop_policy": "asyncio.NoSuchPolicy"}, "must be the dotted path of an event loop"),
        (
            {"event_loop_policy": "uvlop.EventLoopPolicy"},
            "'uvloop.EventLoopPolicy': No module named",
        ),
        ({"connect_args": {"user": "me"}}, "user and password go together: set both"),
        ({"connect_args": {"password": "x"}}, "user and password go together: set both"),
        ({"servers": "a:1"}, "'servers': it belongs in NATS_CONSUMER[\"connect_args\"]."),
        ({"connect_args": {"ping_interval": 0}}, "must be a number of at least 0.1, not 0"),
        ({"connect_args": {"connect_timeout": 0}}, "must be a number of at least 0.1, not 0"),
        ({"connect_args": {"inbox_prefix": "my shop"}}, "'my shop' contains a space"),
        ({"connect_args": {"inbox_prefix": "shop.>"}}, "'shop.>' has a wildcard"),
        ({"connect_args": {"inbox_prefix": ""}}, "'' has an empty token"),
        ({"connect_args": {"error_cb": 5}}, "error_cb must be a coroutine function, not 5"),
        ({"connect_args": {"closed_cb": print}}, "closed_cb must be a coroutine function"),
        ({"http": 9464}, 'NATS_CONSUMER["http"] must be host and port'),
        ({"default_durable_name": "my.app"}, "cannot contain dots: 'my.app'"),
        ({"default_durable_name": 5}, 'default_durable_name"] must be a string, not 5'),
    ],
)
def test_a_value_that_nothing_can_run_with_is_e001(
    settings: Settings, setting: dict[str, Any], message: str
) -> None:
    settings.NATS_CONSUMER = setting
    assert message in found()["nats_consumer.E001"]


def test_metrics_of_a_development_machine_that_others_can_read_are_w017(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"http": "0.0.0.0:9464"}
    settings.DEBUG = True
    assert "other machines can read" in found()["nats_consumer.W017"]
    settings.NATS_CONSUMER = {"http": ":9464"}
    assert found() == {}
    settings.NATS_CONSUMER = {"http": "0.0.0.0:9464"}
    settings.DEBUG = False
    assert found() == {}


def test_all_faults_of_the_settings_are_named_at_once(settings: Settings) -> None:
    connect_args = {"usr": 1, "pasword": "x", "ping_interval": 0}
    settings.NATS_CONSUMER = {"connect_args": connect_args, "servers": "a:1", "shutdown": 5}
    texts = [str(each.msg) for each in checks.run_checks(tags=["nats_consumer"])]
    assert len(texts) == 2
    for key in ("'servers'", "'shutdown'", "'usr'", "'pasword'", "'ping_interval'"):
        assert key in " ".join(texts)


def test_settings_that_are_no_dict_are_reported_once(settings: Settings) -> None:
    settings.NATS_CONSUMER = ["x"]
    declare("OrderConsumer")
    declare("MailConsumer")
    (message,) = checks.run_checks(tags=["nats_consumer"])
    assert "NATS_CONSUMER must be a dict, not list" in message.msg


def test_a_wrong_default_durable_is_reported_once(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"default_durable_name": "my.app"}
    declare("OrderConsumer")
    declare("MailConsumer")
    assert [each.id for each in checks.run_checks(tags=["nats_consumer"])] == ["nats_consumer.E001"]


def test_a_policy_that_is_not_installed_where_nothing_consumes_passes(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"event_loop_policy": "no_such_loop.EventLoopPolicy"}
    assert found() == {}


def test_the_checks_do_not_start_the_embedded_server(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr("nats_consumer.connect.embedded.server_url", started.append)
    settings.NATS_CONSUMER = {"connect_args": {"servers": "embedded"}}
    assert found() == {}
    assert started == []


def test_a_consumer_without_handle_message_is_e002() -> None:
    declare("Silent", JetstreamPullConsumer, filter_subject=">")
    assert "Silent cannot run: it has no handle_message" in found()["nats_consumer.E002"]


class BatchPulling(JetstreamPullConsumer):
    """A base without a stream, so it is not registered."""

    filter_subject = "orders.*"
    max_batch = 10

    def handle_batch(self, messages: list[Any]) -> None: ...


async def handle_message(self: Any, message: Any) -> None: ...


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"handle_message": handle_message}, "it has both handle_message and handle_batch"),
        ({"max_batch": None}, "handle_batch needs max_batch"),
        ({"max_batch": 0}, "max_batch must be a whole number, at least 1"),
        ({"max_batch_wait": -1}, "max_batch_wait must be a number of at least 0"),
        ({"max_batch_bytes": 2**30}, "max_batch_bytes must be at most 33554432"),
        ({"max_ack_pending": 9}, "max_ack_pending (9) is below max_batch (10)"),
        ({"ordered": True}, "ordered = True handles one message at a time"),
    ],
)
def test_a_batch_that_cannot_be_is_e008(attributes: dict[str, Any], message: str) -> None:
    declare("Rows", BatchPulling, **attributes)
    problems = found()
    assert message in problems["nats_consumer.E008"]
    assert list(problems) == ["nats_consumer.E008"]


@pytest.mark.parametrize("name", ["blocking", "loops"])
def test_a_middleware_of_the_other_kind_is_e009(settings: Settings, name: str) -> None:
    def handle(self: Any, message: Any) -> None: ...

    async def ahandle(self: Any, message: Any) -> None: ...

    settings.NATS_CONSUMER = {"middleware": [f"tests.middleware.{name}"]}
    handler = ahandle if name == "blocking" else handle
    declare("Rows", Pulling, handle_message=handler)
    assert f"the middleware tests.middleware.{name} does not work" in found()["nats_consumer.E009"]
    declare("Others", Pulling, handle_message=handle if name == "blocking" else ahandle)
    assert "Others" not in found()["nats_consumer.E009"]


@pytest.mark.parametrize("key", ["middleware", "publish_middleware"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("shop.middleware.tenant", "must be a list of dotted paths"),
        (["no.such.module"], "no.such.module cannot be imported"),
        (["tests.middleware.HERE"], "is not callable"),
    ],
)
def test_a_middleware_that_cannot_be_used_is_e001(
    settings: Settings, key: str, value: Any, message: str
) -> None:
    settings.NATS_CONSUMER = {key: value}
    assert message in found()["nats_consumer.E001"]


def test_a_batch_passes() -> None:
    declare("Rows", BatchPulling, max_ack_pending=10, ephemeral=True)
    assert found() == {}


def test_a_payload_of_a_batch_that_is_no_list_is_e005() -> None:
    def handle_batch(self: Any, order: dict[str, Any]) -> None: ...

    declare("Rows", BatchPulling, handle_batch=handle_batch)
    assert "Rows.handle_batch: 'order' gets a list" in found()["nats_consumer.E005"]


def test_a_limit_of_batches_without_handle_batch_is_w006() -> None:
    declare("Orders", max_batch=10)
    assert "max_batch does nothing without handle_batch" in found()["nats_consumer.W006"]


@pytest.mark.parametrize("name", ["handle_message", "handle_error"])
def test_an_ack_that_is_raised_in_a_transaction_is_w015(name: str) -> None:
    def raises(self: Any, message: Any, *_: Any) -> None:
        with transaction.atomic():
            raise Ack

    declare("Orders", **{name: raises})
    assert f"Orders: its {name} raises Ack() inside transact" in found()["nats_consumer.W015"]


def test_a_wrong_attribute_is_e003() -> None:
    declare("OrderConsumer", durable_name="my durable")
    assert "durable_name cannot contain spaces" in found()["nats_consumer.E003"]


def test_a_stream_name_without_room_for_its_dead_letter_stream_is_e003() -> None:
    declare("OrderConsumer", stream_name="x" * 250)
    assert "stream_name is longer than 249 bytes" in found()["nats_consumer.E003"]


class OrderHandler(ConsumerHandler):
    """A handler of the test's own module, so that no check makes one."""

    async def handle_created(self, message: Any) -> None: ...


class Inherits(Pulling):
    """Its handler is made in __init__, as in the quickstart."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.handler = OrderHandler(["orders.created"])
        self.other = print


class ForgetsAwait(Inherits):
    """Calls the handler's coroutine function and drops the coroutine."""

    async def handle_message(self, message: Any) -> None:
        if message.data:
            self.handler.handle(message)


class ForgetsAwaitOfAttribute(Pulling):
    """The same with a handler that all instances share."""

    handler = OrderHandler(["orders.created"])

    async def handle_message(self, message: Any) -> None:
        self.handler.handle(message)


class HidesItsAttribute(Pulling):
    """A consumer whose instances do not have the handler of the class."""

    handler: Any = OrderHandler(["orders.created"])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.handler = HandlesElsewhere.Archive()

    async def handle_message(self, message: Any) -> None:
        self.handler.handle(message)


class HandlesElsewhere(Inherits):
    """Each of these calls is right, or is not one of a ConsumerHandler."""

    class Archive:
        """A stranger's class with a method of that name."""

        def handle(self, message: Any) -> None: ...

    archive = Archive()

    async def handle_message(self, message: Any) -> None:
        self.archive.handle(message)
        self.other.handle(message)  # type: ignore[attr-defined]
        await self.handler.handle(message)

        def in_a_thread() -> None:
            self.handler.handle(message)


class Blocks(Inherits):
    """In a plain `def` the call has finished when it returns."""

    concurrency = 1

    def handle_message(self, message: Any) -> None:  # type: ignore[override]
        self.handler.handle(message)


@pytest.mark.parametrize("base", [ForgetsAwait, ForgetsAwaitOfAttribute])
def test_a_handler_called_without_await_is_e004(base: type) -> None:
    declare("OrderConsumer", base)
    message = found()["nats_consumer.E004"]
    assert "OrderConsumer: its handle_message calls self.handler.handle(message)" in message
    assert "Write: await self.handler.handle(message)" in message


@pytest.mark.parametrize("base", [HandlesElsewhere, HidesItsAttribute, Blocks, Pulling])
def test_calls_that_need_no_await_pass(base: type) -> None:
    declare("OrderConsumer", base)
    assert found() == {}


def test_both_families_of_retry_names_are_e003() -> None:
    declare("OrderConsumer", max_retries=3, backoff_delays=[1.0])
    assert "mixes two ways to describe retries" in found()["nats_consumer.E003"]


def test_two_consumers_of_one_name_pass() -> None:
    declare("OrderConsumer", __module__="shop.consumers")
    declare("OrderConsumer", __module__="billing.consumers", stream_name="invoices")
    assert found() == {}


@pytest.mark.parametrize("by_setting", [True, False])
def test_two_consumers_that_share_a_durable_on_a_stream_are_w002(
    settings: Settings, by_setting: bool
) -> None:
    attributes = {} if by_setting else {"durable_name": "shared"}
    settings.NATS_CONSUMER = {"default_durable_name": "shared"} if by_setting else {}
    declare("OrderConsumer", **attributes)
    declare("MailConsumer", **attributes)
    message = found()["nats_consumer.W002"]
    assert "OrderConsumer and" in message
    assert "MailConsumer share the durable 'shared' on stream 'orders'" in message
    assert "its own durable_name" in message
    assert ("default_durable_name" in message) is by_setting


def test_a_durable_that_a_method_decides_is_not_taken_to_be_shared() -> None:
    declare("OrderConsumer", durable_name="shared")
    declare("MailConsumer", durable_name="shared", get_durable_name=lambda self: "mail")
    assert found() == {}


def test_one_durable_on_two_streams_is_fine() -> None:
    declare("OrderConsumer", durable_name="shared")
    declare("MailConsumer", durable_name="shared", stream_name="mails")
    assert found() == {}


def test_subjects_that_will_not_arrive_are_w001() -> None:
    subjects = ["orders.created", "orders.updated", "orders.shipped"]
    declare("OrderConsumer", filter_subject=None, subjects=subjects)
    message = found()["nats_consumer.W001"]
    assert "do not arrive: orders.updated, orders.shipped" in message
    assert "Set filter_subject" in message


def test_the_seeds_two_consumers_pass_together_without_a_durable_name() -> None:
    declare("OrderConsumer", JetstreamPushConsumer, filter_subject="orders.*", handle_message=print)
    declare("BatchOrderConsumer")
    assert found() == {}


def test_a_timeout_passes_for_handlers_of_either_kind() -> None:
    declare("BillConsumer", handler_timeout=5.0)
    in_threads(concurrency=1, handler_timeout=5.0)
    assert found() == {}


def in_threads(**attributes: Any) -> None:
    declare("OrderConsumer", handle_message=lambda self, message: None, **attributes)


def test_threads_that_write_to_sqlite_as_django_sets_it_up_are_w004() -> None:
    in_threads()
    message = found()["nats_consumer.W004"]
    assert "The SQLite database 'default' will often be locked" in message
    assert "the threads of OrderConsumer write" in message
    assert '"transaction_mode": "IMMEDIATE"' in message


def test_sqlite_whose_transactions_begin_as_writers_passes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings.DATABASES["default"], "OPTIONS", {"transaction_mode": "IMMEDIATE"})
    in_threads()
    assert found() == {}


def test_one_thread_that_writes_to_sqlite_passes() -> None:
    in_threads(concurrency=1)
    assert found() == {}


def test_threads_that_write_to_another_database_pass(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgresql = "django.db.backends.postgresql"
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", postgresql)
    in_threads()
    assert found() == {}


@pytest.fixture
def postgresql(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The project's database is PostgreSQL, with these settings."""
    database: dict[str, Any] = {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {}}
    monkeypatch.setitem(settings.DATABASES, "default", database)
    return database


@pytest.mark.parametrize("pool", [True, {"max_size": 9}, {"min_size": 2}])
def test_a_pool_with_fewer_connections_than_a_consumer_has_threads_is_w020(
    postgresql: dict[str, Any], pool: object
) -> None:
    postgresql["OPTIONS"]["pool"] = pool
    in_threads(concurrency=10)
    message = found()["nats_consumer.W020"]
    assert "fewer than the threads of OrderConsumer" in message
    assert '"max_size" of at least 10' in message


@pytest.mark.parametrize("pool", [None, False, {"max_size": 10}, {"min_size": 10}])
def test_a_pool_that_has_a_connection_for_each_thread_passes(
    postgresql: dict[str, Any], pool: object
) -> None:
    postgresql["OPTIONS"]["pool"] = pool
    in_threads(concurrency=10)
    assert found() == {}


def test_a_concurrency_above_the_threads_of_a_process_is_w022(
    postgresql: dict[str, Any], settings: Settings
) -> None:
    in_threads(concurrency=33)
    assert (
        "concurrency of 33, and a process has at most 32 threads" in found()["nats_consumer.W022"]
    )
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "max_threads": 33}
    assert found() == {}


@pytest.mark.parametrize("port", [6432, "6432", 6543])
def test_server_side_cursors_through_a_pooler_are_w021(
    postgresql: dict[str, Any], port: object
) -> None:
    postgresql["PORT"] = port
    assert '"DISABLE_SERVER_SIDE_CURSORS": True' in found()["nats_consumer.W021"]
    postgresql["DISABLE_SERVER_SIDE_CURSORS"] = True
    assert found() == {}


def test_all_faults_of_a_consumer_are_one_e003() -> None:
    declare("OrderConsumer", durable_name="my durable", max_retries=-1, batch_size=0, ack_wait=0)
    message = found()["nats_consumer.E003"]
    assert "durable_name cannot contain spaces" in message
    assert "max_retries must be a whole number, at least 0, not -1" in message
    assert "batch_size must be a whole number, at least 1" in message
    assert "ack_wait must be a number of at least 0.1" in message


def without_message(self: Any) -> None: ...


def without_attempt(self: Any, message: Any, error: Exception) -> None: ...


def test_a_handler_with_other_arguments_than_it_is_given_is_e003() -> None:
    declare("OrderConsumer", handle_message=without_message, handle_error=without_attempt)
    message = found()["nats_consumer.E003"]
    assert "handle_message must take (self, message), not (self: Any)" in message
    assert "handle_error must take (self, message, error, attempt), not (" in message


def test_a_filter_that_matches_no_subject_is_w005() -> None:
    declare("OrderConsumer", filter_subject="order.*", subjects=["orders.created", "orders.paid"])
    assert (
        "OrderConsumer filters by 'order.*', which none of its subjects can match: orders.created"
        in found()["nats_consumer.W005"]
    )


def test_a_filter_that_matches_some_subject_passes() -> None:
    declare("OrderConsumer", filter_subject="orders.*.eu", subjects=["mail", "orders.created.>"])
    assert found() == {}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"start_time": datetime(2026, 1, 1, tzinfo=UTC)},
            "start_time does nothing with deliver_policy 'all'",
        ),
        (
            {"start_sequence": 5, "deliver_policy": "new"},
            "Set deliver_policy = 'by_start_sequence'",
        ),
        ({"initial_retry_delay": 90}, "every retry waits 60 s. Raise max_retry_delay"),
    ],
)
def test_an_attribute_that_does_nothing_beside_the_others_is_w006(
    attributes: dict[str, Any], message: str
) -> None:
    declare("OrderConsumer", **attributes)
    assert message in found()["nats_consumer.W006"]


@pytest.mark.parametrize("attribute", ["batch_size", "fetch_timeout"])
def test_an_attribute_of_pull_consumers_in_a_push_consumer_is_w006(attribute: str) -> None:
    attributes = {"handle_message": Pulling.handle_message, "filter_subject": ">", attribute: 5}
    declare("OrderConsumer", JetstreamPushConsumer, **attributes)
    assert f"{attribute} does nothing for a push consumer" in found()["nats_consumer.W006"]


def test_an_attribute_of_pull_consumers_that_a_base_has_passes() -> None:
    class Base(JetstreamPushConsumer):
        filter_subject = ">"
        batch_size = 5

        async def handle_message(self, message: Any) -> None: ...

    declare("OrderConsumer", Base)
    assert found() == {}


def test_a_last_word_left_to_a_handle_error_that_is_missing_is_w006() -> None:
    behavior = ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
    declare("OrderConsumer", handle_error_ack_behavior=behavior)
    assert "which the class does not define. Define it" in found()["nats_consumer.W006"]


def test_a_last_word_left_to_handle_error_passes() -> None:
    async def handle_error(self: Any, message: Any, error: Exception, attempt: int) -> None: ...

    behavior = ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
    declare("OrderConsumer", handle_error_ack_behavior=behavior, handle_error=handle_error)
    assert found() == {}


def test_a_consumer_of_an_app_that_forgot_its_stream_is_w012() -> None:
    declare("OrderConsumer", stream_name=None, __module__="tests.project.orders.consumers")
    assert "OrderConsumer has no stream_name, so it never runs" in found()["nats_consumer.W012"]


def test_a_base_of_an_app_that_leaves_the_stream_to_its_heirs_passes() -> None:
    module = "tests.project.orders.consumers"
    base = type("Base", (Pulling,), {"__module__": module})
    declare("OrderConsumer", base, __module__=module)
    declare("Bare", JetstreamPullConsumer, stream_name=None, __module__=module)
    assert found() == {}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_retry", "max_retries"),
        ("batchsize", "batch_size"),
        ("subject", "subjects"),
        ("concurency", "concurrency"),
    ],
)
def test_a_misspelt_attribute_is_w007(name: str, meant: str) -> None:
    declare("OrderConsumer", **{name: 3})
    assert (
        f"an unknown attribute {name!r}. Did you mean {meant!r}?" in (found()["nats_consumer.W007"])
    )


def test_a_misspelt_method_is_w007() -> None:
    declare("OrderConsumer", handle_errors=without_attempt)
    assert "Did you mean 'handle_error'?" in found()["nats_consumer.W007"]


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("wrap_handle_message", r"nothing calls its wrap_handle_message()"),
        ("schedule_retry", r"nothing calls its schedule_retry()"),
        ("setup_subscriptions", r"nothing calls its setup_subscriptions()"),
        ("run", r"manage.py nats_consumer does not call its run()"),
        ("start", r"manage.py nats_consumer does not call its start()"),
        ("stop", r"manage.py nats_consumer does not call its stop()"),
    ],
)
def test_a_method_of_older_versions_that_nobody_calls_is_w008(method: str, text: str) -> None:
    declare("OrderConsumer", **{method: print})
    assert text in found()["nats_consumer.W008"]


def test_attributes_of_the_projects_own_pass() -> None:
    declare("OrderConsumer", handle_message_inner=print, handle_order=print, currency="EUR")
    assert found() == {}


def test_retries_without_a_pause_and_without_an_end_are_w013() -> None:
    declare("Hot", max_retry_delay=0, initial_retry_delay=0)
    assert "max_retry_delay is 0" in found()["nats_consumer.W013"]


def test_an_ordered_consumer_whose_retries_wait_for_minutes_is_w018() -> None:
    behavior = ErrorAckBehavior.NAK
    declare("Slow", ordered=True, max_retry_delay=300, handle_error_ack_behavior=behavior)
    assert "may wait for 300 s" in found()["nats_consumer.W018"]


def test_an_ordered_consumer_with_the_usual_delays_passes() -> None:
    declare("Usual", ordered=True, handle_error_ack_behavior=ErrorAckBehavior.DEAD_LETTER)
    assert found() == {}


def test_no_pause_before_a_dead_letter_is_fine() -> None:
    behavior = ErrorAckBehavior.DEAD_LETTER
    declare("Quick", max_retry_delay=0, initial_retry_delay=0, handle_error_ack_behavior=behavior)
    assert "nats_consumer.W013" not in found()


def test_a_connection_that_does_not_exist_is_e003_with_those_that_do(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"connections": {"analytics": {}}}
    declare("Clicks", connection="analitics")
    text = found()["nats_consumer.E003"]
    assert "Clicks cannot run: There is no connection 'analitics'." in text
    assert "default, analytics." in text
    declare("Clicks", connection="analytics")
    assert found() == {}


def test_a_mistake_in_another_connection_is_e001_and_no_consumer_repeats_it(
    settings: Settings,
) -> None:
    declare("Clicks", connection="analytics")
    settings.NATS_CONSUMER = {"connections": {"analytics": {"server": "x"}}}
    assert 'NATS_CONSUMER["connections"]["analytics"]' in found()["nats_consumer.E001"]
    settings.NATS_CONSUMER = {"connections": ["analytics"]}
    assert set(found()) == {"nats_consumer.E001"}


def test_credentials_in_a_url_of_another_connection_are_w010(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"connections": {"analytics": {"servers": "token@a:1"}}}
    assert '["connections"]["analytics"]["servers"]' in found()["nats_consumer.W010"]


def test_one_durable_on_two_systems_is_not_shared(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"connections": {"analytics": {}}}
    declare("Orders", durable_name="reader")
    declare("Clicks", durable_name="reader", connection="analytics")
    assert found() == {}


def test_an_outbox_that_no_worker_relays_is_w016_which_says_what_it_cannot_see(
    settings: Settings,
) -> None:
    settings.NATS_CONSUMER = {"outbox_relay": False}
    [warning] = check_relay()
    assert warning.id == "nats_consumer.W016"
    assert "This check cannot see such a process; `manage.py nats_status` shows it" in warning.msg
    assert "SILENCED_SYSTEM_CHECKS" in str(warning.hint)
