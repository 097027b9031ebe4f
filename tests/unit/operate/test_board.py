"""A status as text: it fits into 80 columns."""

from typing import Any

import pytest

from nats_consumer.operate.board import lines_of, short
from nats_consumer.operate.fleet import Worker
from nats_consumer.operate.status import ConsumerStatus, ServerStatus, StreamStatus, Unclaimed


def consumer(**fields: Any) -> ConsumerStatus:
    known: dict[str, Any] = {
        "consumer": "InvoiceConsumer",
        "connection": "default",
        "stream": "orders",
        "durable": "invoices",
        "state": "consumed",
        "pending": 12_345_678,
        "ack_pending": 20_000,
        "ack_pending_limit": 20_000,
        "redelivered": 123,
        "oldest_seconds": 7200.0,
        "workers": 12,
        "dead_letters": 4711,
        "delivered": 9,
    }
    return ConsumerStatus(**{**known, **fields})


def worker(consumer: str, **fields: Any) -> Worker:
    known: dict[str, Any] = {
        "stream": "orders",
        "durable": "invoices",
        "host": "web-1",
        "pid": 7,
        "version": "3",
        "started": "",
        "state": "consuming",
        "reason": "",
        "state_seconds": 1,
        "in_flight": 2,
        "late": 0,
        "concurrency": 10,
        "received": 5,
        "failed": 1,
        "dead_lettered": 0,
        "repairs": 0,
    }
    return Worker(consumer=consumer, **{**known, **fields})


def server(**fields: Any) -> ServerStatus:
    known: dict[str, Any] = {
        "connection": "default",
        "server": "nats://nats.example.com:4222",
        "consumers": [consumer()],
        "workers": [],
    }
    return ServerStatus(**{**known, **fields})


@pytest.mark.parametrize("rates", [None, {"InvoiceConsumer": 1234.5}])
@pytest.mark.parametrize("state", ["consumed", "unattended", "paused"])
def test_a_table_fits_into_eighty_columns(state: str, rates: dict[str, float] | None) -> None:
    shown = server(consumers=[consumer(state=state, paused_seconds=3600.0)])
    lines = list(lines_of(shown, 80, rates))
    assert max(map(len, lines)) <= 80
    assert any("12.3M" in line and "20k/20k" in line and "2 h" in line for line in lines)
    assert any("1234" in line for line in lines) is bool(rates)


def test_a_wide_terminal_has_room_for_durables_too() -> None:
    assert not any("orders/invoices" in line for line in lines_of(server(), 80))
    wide = list(lines_of(server(), 120))
    assert any("orders/invoices" in line for line in wide)
    assert max(map(len, wide)) <= 120


def test_the_workers_of_one_process_are_one_row_that_names_trouble() -> None:
    found = [worker("Orders"), worker("Mails", state="paused"), worker("Orders", pid=8)]
    lines = list(lines_of(server(workers=found), 80))
    rows = [" ".join(line.split()) for line in lines if line.startswith("web-1")]
    assert rows == ["web-1 7 2 4/20 10 2 0 Mails paused", "web-1 8 1 2/10 5 1 0 consuming"]


def test_what_differs_and_what_nobody_declares_is_said_below() -> None:
    shown = server(
        consumers=[consumer(differs=["ack_wait: 1m -> 30s"])],
        unclaimed=[Unclaimed(stream="orders", durable="old", pending=3, active_seconds=None)],
        workers=None,
    )
    text = "\n".join(lines_of(shown, 80))
    assert "InvoiceConsumer differs: ack_wait: 1m -> 30s" in text
    assert "No class declares the durable orders/old, 3 messages pending." in text
    assert "Workers: this user may not ask them." in text


def test_the_fullest_limit_of_a_stream_is_shown() -> None:
    stream = StreamStatus(
        name="orders",
        messages=50,
        bytes=900,
        max_messages=100,
        max_bytes=1000,
        replicas=3,
        leader="n1",
    )
    lines = list(lines_of(server(streams=[stream]), 80))
    assert [" ".join(line.split()) for line in lines if line.startswith("orders")] == [
        "orders 50 900 B 90% 3 n1"
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0, "0"),
        (9_999, "9999"),
        (12_345, "12.3k"),
        (999_999, "999k"),
        (1_234_567, "1.23M"),
        (2_000_000_000, "2G"),
    ],
)
def test_a_number_has_at_most_six_characters(number: int | None, text: str) -> None:
    assert short(number) == text
