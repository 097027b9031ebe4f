"""The judgement of a status."""

from typing import Any

import pytest

from nats_consumer.operate.health import Level, Limits, problems
from nats_consumer.operate.status import ConsumerStatus, ServerStatus, Unclaimed


def judged(limits: Limits | None = None, **fields: Any) -> list[tuple[Level, str]]:
    known: dict[str, Any] = {
        "consumer": "Orders",
        "connection": "default",
        "stream": "orders",
        "durable": "Orders",
        "state": "consumed",
        "pending": 5,
        "ack_pending": 6,
        "oldest_seconds": 100.0,
        "dead_letters": 2,
    }
    consumer = ConsumerStatus(**{**known, **fields})
    server = ServerStatus(connection="default", server="nats://x", consumers=[consumer])
    return problems([server], limits or Limits())


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({}, None),
        ({"state": "idle"}, None),
        ({"state": "paused"}, None),
        ({"state": "missing"}, Level.CRITICAL),
        ({"state": "unattended"}, Level.CRITICAL),
        ({"differs": ["ack_wait: 1s -> 2s"]}, Level.WARNING),
    ],
)
def test_a_state_has_its_level(fields: dict[str, Any], level: Level | None) -> None:
    assert [each for each, _ in judged(**fields)] == ([] if level is None else [level])


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (Limits(pending=11), Limits(pending=10)),
        (Limits(oldest=100), Limits(oldest=99)),
        (Limits(dead=2), Limits(dead=1)),
    ],
)
def test_a_limit_is_exceeded_by_one_more(within: Limits, beyond: Limits) -> None:
    assert judged(within) == []
    [(level, text)] = judged(beyond)
    assert level == Level.CRITICAL
    assert "Orders: " in text


def test_what_is_not_known_exceeds_no_limit() -> None:
    assert judged(Limits(oldest=0, dead=1), oldest_seconds=None, dead_letters=None) == []


def test_the_worst_comes_first() -> None:
    away = ServerStatus(connection="away", error="no answer", consumers=[])
    left = ServerStatus(
        connection="default",
        server="nats://x",
        consumers=[],
        unclaimed=[Unclaimed(stream="orders", durable="old", pending=0, active_seconds=None)],
    )
    assert [level for level, _ in problems([left, away], Limits())] == [
        Level.UNKNOWN,
        Level.WARNING,
    ]
