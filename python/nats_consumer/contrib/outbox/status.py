"""The outbox in `manage.py nats_status`: how far each relay is behind, and who relays."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from django.db import Error
from django.db.models.functions import Now

from nats_consumer.operate.health import Level, Limits
from nats_consumer.operate.listing import duration
from nats_consumer.terminal import table

from .lag import lag
from .models import RelayLease
from .run import databases

_HEADING = ("outbox", "waiting", "oldest", "refused", "relay")


@dataclass(frozen=True, kw_only=True)
class OutboxStatus:
    """Rows that wait in one database, as a Lag counts them, and the process that relays them; None
    if nobody does. Without an answer of the database there is an `error` alone."""

    database: str
    rows: int | None = None
    oldest_seconds: float | None = None
    stuck: int | None = None
    relay: str | None = None
    error: str | None = None


def outboxes() -> list[OutboxStatus]:
    """Look at every database that has the table."""
    return [_look(alias) for alias in databases()]


def _look(alias: str) -> OutboxStatus:
    try:
        found = asdict(lag(alias))
        return OutboxStatus(database=alias, relay=holder(alias), **found)
    except Error as error:
        return OutboxStatus(database=alias, error=str(error).strip())


def holder(alias: str) -> str | None:
    """The process that relays the rows of the database, if one does."""
    lease = RelayLease.objects.using(alias).filter(until__gt=Now()).exclude(holder="").first()
    return lease.holder if lease else None


def table_of(found: Iterable[OutboxStatus]) -> Iterator[str]:
    """A table with a row for each database."""
    rows = [_row(each) for each in found]
    if rows:
        yield from table(_HEADING, rows)


def problems_of(found: Iterable[OutboxStatus], limits: Limits) -> Iterator[tuple[Level, str]]:
    """Everything that is wrong."""
    for each in found:
        where = f"outbox of {each.database}"
        if each.error is not None:
            yield Level.UNKNOWN, f"{where}: {each.error}"
        if each.rows and each.relay is None:
            yield Level.CRITICAL, f"{where}: no relay runs, and {each.rows} messages wait"
        if each.stuck:
            yield Level.WARNING, f"{where}: {each.stuck} messages were refused, and their keys wait"
        oldest = each.oldest_seconds or 0.0
        if limits.oldest is not None and oldest > limits.oldest:
            text = f"{oldest:.0f} seconds since the oldest was stored, more than {limits.oldest:g}"
            yield Level.CRITICAL, f"{where}: {text}"


def _row(it: OutboxStatus) -> tuple[str, ...]:
    if it.error is not None:
        return it.database, "?", "?", "?", it.error
    oldest = duration(it.oldest_seconds) if it.rows and it.oldest_seconds is not None else "-"
    return it.database, str(it.rows), oldest, str(it.stuck), it.relay or "none runs"
