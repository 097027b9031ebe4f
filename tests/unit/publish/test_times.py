"""Times of messages: `at` and `ttl`."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import publish
from nats_consumer.publish.times import lines_of
from nats_consumer.testing import capture_published


def test_a_time_is_sent_in_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    lines = lines_of(datetime(2026, 12, 1, 9, 30, tzinfo=tokyo), None)
    assert lines == {"Nats-Schedule": "@at 2026-12-01T00:30:00.000000Z"}


def test_a_time_that_the_server_cannot_count_is_refused_or_at_once() -> None:
    lines = lines_of(datetime(1, 1, 1, tzinfo=UTC), None)
    assert lines == {"Nats-Schedule": "@at 1970-01-01T00:00:00.000000Z"}
    with pytest.raises(ValueError, match="2262-04-11"):
        lines_of(datetime(2263, 1, 1, tzinfo=UTC), None)


def test_a_naive_time_is_refused_where_django_uses_time_zones(settings: Settings) -> None:
    settings.USE_TZ = True
    with pytest.raises(ValueError, match="has no time zone"):
        lines_of(datetime.fromisoformat("2026-12-01"), None)


def test_a_naive_time_is_in_the_time_zone_of_a_project_without_time_zones(
    settings: Settings,
) -> None:
    settings.USE_TZ = False
    settings.TIME_ZONE = "Asia/Tokyo"
    assert lines_of(datetime.fromisoformat("2026-12-01 09:00"), None) == {
        "Nats-Schedule": "@at 2026-12-01T00:00:00.000000Z"
    }


def test_a_time_to_live_is_rounded_up_to_seconds() -> None:
    for ttl, text in [(1, "1s"), (1.01, "2s"), (timedelta(minutes=1), "60s")]:
        assert lines_of(None, ttl) == {"Nats-TTL": text}


@pytest.mark.parametrize(
    ("at", "ttl", "error"),
    [
        ("tomorrow", None, TypeError),
        (7, None, TypeError),
        (timedelta.max, None, ValueError),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-9))), None, ValueError),
        (None, "1", TypeError),
        (None, True, TypeError),
        (None, 0, ValueError),
        (None, -1, ValueError),
        (None, float("nan"), ValueError),
        (None, float("inf"), ValueError),
        (None, timedelta(milliseconds=999), ValueError),
        (None, timedelta(days=365 * 240), ValueError),
        (timedelta(days=365 * 235), timedelta(days=365 * 5), ValueError),
    ],
)
def test_a_time_that_means_nothing_is_refused(at: Any, ttl: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"at=|at must|ttl must|ttl="):
        publish("shop.remind", b"", at=at, ttl=ttl)


def test_a_captured_message_has_its_time() -> None:
    due = datetime(2026, 12, 1, 9, tzinfo=UTC)
    with capture_published() as published:
        publish("shop.remind", b"", at=due)
        publish("shop.now", b"")
    assert [each.at for each in published] == [due, None]
