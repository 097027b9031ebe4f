"""The engine's records come to Python's logging, and the command's can be seen."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from nats_consumer.connect.log import LogPump
from nats_consumer.run import logs
from tests.waiting import eventually


@pytest.fixture
def bare_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """A logger as in a project whose LOGGING says nothing about it."""
    logger = logging.Logger("nats_consumer")
    monkeypatch.setattr(logs, "_ROOT", logger)
    yield logger
    logger.handlers.clear()


def test_the_engines_records_come_with_their_level_and_logger(
    caplog: pytest.LogCaptureFixture,
) -> None:
    batches = [
        [(logging.WARNING, "nats_consumer.connect", "lost %s of 100%", {"stream": "orders"})]
    ]

    with LogPump(lambda timeout: batches.pop() if batches else []):
        eventually(lambda: caplog.records)
    (record,) = caplog.records
    assert record.name == "nats_consumer.connect"
    assert record.levelname == "WARNING"
    assert record.getMessage() == "lost %s of 100%"
    assert record.__dict__["stream"] == "orders"


def test_a_field_with_a_name_that_logging_has_itself_stops_no_other_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fields = {"name": "orders", "message": "m", "stream": "orders"}
    batches = [[(logging.INFO, "nats_consumer.connect", text, fields) for text in ("one", "two")]]
    caplog.set_level(logging.INFO, "nats_consumer.connect")
    with LogPump(lambda timeout: batches.pop() if batches else []):
        eventually(lambda: len(caplog.records) == 2)
    assert [record.getMessage() for record in caplog.records] == ["one", "two"]
    assert caplog.records[0].name == "nats_consumer.connect"
    assert caplog.records[0].__dict__["stream"] == "orders"


@pytest.mark.parametrize("raises", [True, False])
def test_an_exception_of_a_logging_filter_stops_no_later_record(
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    raises: bool,
) -> None:
    def fail_once(record: logging.LogRecord) -> bool:
        if record.getMessage() == "one":
            raise KeyError("request_id")
        return True

    logger = logging.getLogger("nats_consumer.connect")
    monkeypatch.setattr(logger, "filters", [fail_once])
    monkeypatch.setattr(logging, "raiseExceptions", raises)
    batches = [[(logging.WARNING, logger.name, text, {})] for text in ("two", "one")]
    with LogPump(lambda timeout: batches.pop() if batches else []):
        eventually(lambda: caplog.records)
    assert [record.getMessage() for record in caplog.records] == ["two"]
    shown = capsys.readouterr().err
    assert ("KeyError: 'request_id'" in shown) is raises
    assert ("the log line was: one" in shown) is raises


def test_the_last_records_are_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    def take(timeout: float) -> list[tuple[int, str, str, dict[str, Any]]]:
        return [] if timeout else [(logging.ERROR, "nats_consumer.worker", "the last word", {})]

    with LogPump(take):
        pass
    assert [record.getMessage() for record in caplog.records] == ["the last word"]


def test_information_is_shown_where_nobody_configured_it(
    bare_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.make_visible(None)
    bare_logger.info("started")
    bare_logger.debug("hidden")
    shown = capsys.readouterr().err
    assert "INFO" in shown
    assert "nats_consumer: started" in shown
    assert "hidden" not in shown


def test_lines_of_a_worker_beside_others_have_its_process_id(
    bare_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.make_visible(None, is_worker=True)
    bare_logger.info("started")
    assert f" {os.getpid()} nats_consumer: started" in capsys.readouterr().err


def test_a_projects_own_configuration_is_left_alone(bare_logger: logging.Logger) -> None:
    own = logging.NullHandler()
    bare_logger.addHandler(own)
    bare_logger.setLevel("ERROR")
    logs.make_visible(None)
    assert bare_logger.handlers == [own]
    assert bare_logger.level == logging.ERROR


def test_a_level_from_the_command_line_holds_in_any_case(bare_logger: logging.Logger) -> None:
    bare_logger.addHandler(logging.NullHandler())
    logs.make_visible("DEBUG")
    assert bare_logger.level == logging.DEBUG


def test_what_was_printed_is_written_before_an_exit_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(logs.logging, "shutdown", lambda: None)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(written)))
    sys.stdout.write("the last order")
    assert written.getvalue() == b""
    logs.flush()
    assert written.getvalue() == b"the last order"


def test_a_standard_stream_that_is_gone_does_not_stop_the_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs.logging, "shutdown", lambda: None)
    monkeypatch.setattr(sys, "stdout", None)
    logs.flush()


def test_an_error_that_quotes_a_stranger_does_not_steer_the_terminal(
    bare_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", output := io.StringIO())
    logs.make_visible(None)
    try:
        raise ValueError("\x1b[2Jgone")
    except ValueError:
        bare_logger.exception("failed")
    assert r"ValueError: \x1b[2Jgone" in output.getvalue()
    assert "\x1b" not in output.getvalue()
