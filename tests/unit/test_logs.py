"""Fields of log records, for the lines of the package and for a project's own."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import ErrorAckBehavior, JetstreamPullConsumer, publish
from nats_consumer.logs import FIELDS, MessageFields
from nats_consumer.run.dispatch import LoopDispatch
from nats_consumer.testing import FakeMessage, Nats

CREATED = "orders.created"
REPORTER = "nats_consumer.handler"
BOTH = pytest.mark.parametrize("how", ["def", "async"])


class Orders(JetstreamPullConsumer):
    stream_name = "orders"
    filter_subject = CREATED
    handle_error_ack_behavior = ErrorAckBehavior.DEAD_LETTER
    max_retries = 1

    def handle_message(self, message: Any) -> None: ...


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: record.__dict__[name] for name in FIELDS if name in record.__dict__}


def test_no_field_is_one_of_loggings_own() -> None:
    record = logging.makeLogRecord({})
    assert not set(FIELDS) & {*record.__dict__, "message", "asctime"}


def test_the_report_of_an_attempt_has_fields_and_a_template(
    caplog: pytest.LogCaptureFixture,
) -> None:
    message = FakeMessage("x", subject=CREATED, stream="orders")
    LoopDispatch(Orders(), 1).log(message, ValueError("no"), "the next attempt follows in 1s")
    (record,) = caplog.records
    assert fields(record) == {
        "consumer": "Orders",
        "stream": "orders",
        "durable": "captured",
        "subject": CREATED,
        "sequence": 1,
        "attempt": 1,
        "handler": "handle_message",
        "outcome": "retry",
        "error_type": "ValueError",
    }
    assert "%d" in record.msg
    assert record.getMessage() == (
        "Orders: attempt 1 of 2 at message 1 of orders.created failed with ValueError: no; "
        "the next attempt follows in 1s."
    )
    assert record.exc_info is None


def test_the_traceback_of_an_earlier_attempt_is_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    message = FakeMessage("x", subject=CREATED)
    error = ValueError("no")
    with caplog.at_level(logging.DEBUG, REPORTER):
        LoopDispatch(Orders(), 1).log(message, error, "the next attempt follows in 1s")
    warning, debug = caplog.records
    assert (warning.levelno, debug.levelno) == (logging.WARNING, logging.DEBUG)
    assert debug.exc_info is not None
    assert debug.exc_info[1] is error
    assert fields(debug)["error_type"] == "ValueError"


def test_the_report_of_the_last_attempt_says_what_becomes_of_the_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(self: Any, message: Any) -> None:
        raise ValueError("no")

    failing = type("Failing", (Orders,), {"handle_message": fail})
    with Nats([failing]).in_use() as nats:
        publish(CREATED, "1")
        nats.run()
    (last,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert fields(last)["outcome"] == "dead_letter"
    assert fields(last)["attempt"] == 2
    assert last.exc_info is not None


@pytest.fixture
def own() -> Iterator[list[logging.LogRecord]]:
    """The records of a project's own logger, filtered."""
    found: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler, logger = Handler(), logging.getLogger("shop")
    handler.addFilter(MessageFields())
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


@BOTH
def test_a_handlers_own_lines_have_the_fields(
    settings: Settings, own: list[logging.LogRecord], how: str
) -> None:
    settings.NATS_CONSUMER = {"middleware": ["nats_consumer.logs.current_message_is_known"]}

    def handle(self: Any, message: Any) -> None:
        logging.getLogger("shop").warning("paid", extra={"outcome": "mine"})

    async def ahandle(self: Any, message: Any) -> None:
        handle(self, message)

    paying = type("Paying", (Orders,), {"handle_message": ahandle if how == "async" else handle})
    with Nats([paying]).in_use() as nats:
        publish(CREATED, "1")
        nats.run()
    logging.getLogger("shop").warning("outside")
    inside, outside = own
    assert fields(inside) == {
        "consumer": "Paying",
        "stream": "orders",
        "durable": "Paying",
        "subject": CREATED,
        "sequence": 1,
        "attempt": 1,
        "handler": "handle_message",
        "outcome": "mine",
        "error_type": None,
    }
    assert set(fields(outside).values()) == {None}
