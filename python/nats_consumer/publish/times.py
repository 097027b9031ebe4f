"""Times of a message: when the server publishes it, and how long it keeps it, as headers."""

from datetime import UTC, datetime, timedelta
from math import ceil, inf
from typing import TypeAlias

from django.utils import timezone

from nats_consumer.api import Header

At: TypeAlias = datetime | timedelta
Ttl: TypeAlias = float | timedelta

SCHEDULE = Header.SCHEDULE.value
SCHEDULE_TARGET = Header.SCHEDULE_TARGET.value
TTL = Header.MSG_TTL.value

# The server counts nanoseconds since 1970 in 64 bits with a sign. What it cannot count it publishes
# at once, or never (nats-server 2.12.8 and 2.15.1), or deletes at once.
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(2262, 4, 11, tzinfo=UTC)
_LAST_DAY = "2262-04-11, the latest time that the server can store"


def lines_of(at: At | None, ttl: Ttl | None) -> dict[str, str]:
    """The headers for them. Raises TypeError or ValueError, naming the argument."""
    lines = {}
    moment = datetime.now(UTC)
    if at is not None:
        moment = max(_moment(at), _FIRST)
        if moment > _LAST:
            raise ValueError(f"at={at!r} is after {_LAST_DAY}.")
        text = moment.replace(tzinfo=None).isoformat(timespec="microseconds")
        lines[SCHEDULE] = f"@at {text}Z"
    if ttl is not None:
        seconds = _whole_seconds(ttl)
        # The server would delete the message at once.
        if seconds > (_LAST - moment).total_seconds():
            raise ValueError(f"ttl={ttl!r} ends after {_LAST_DAY}.")
        lines[TTL] = f"{seconds}s"
    return lines


def time_of(schedule: str | None) -> datetime | None:
    """The time in a header that lines_of() has made; None for any other."""
    if not schedule or not schedule.startswith("@at "):
        return None
    return datetime.fromisoformat(schedule.removeprefix("@at "))


def _moment(at: At) -> datetime:
    """The time in UTC. A naive one is meant in TIME_ZONE, if the project has USE_TZ = False."""
    try:
        if isinstance(at, timedelta):
            return datetime.now(UTC) + at
        if not isinstance(at, datetime):
            raise TypeError(f"at must be a datetime, or a timedelta from now, not {at!r}.")
        if timezone.is_naive(at):
            at = _made_aware(at)
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"at={at!r} is beyond the times that Python knows.") from error


def _made_aware(at: datetime) -> datetime:
    from django.conf import settings

    if settings.USE_TZ:
        raise ValueError(
            f"at={at!r} has no time zone. Use django.utils.timezone.now() or make_aware(), or a "
            "timedelta from now."
        )
    return timezone.make_aware(at)


def _whole_seconds(ttl: Ttl) -> int:
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"ttl must be a number of seconds, or a timedelta, not {ttl!r}.")
    if not 1 <= seconds < inf:
        raise ValueError(f"ttl must be at least 1 second, not {ttl!r}.")
    return ceil(seconds)
