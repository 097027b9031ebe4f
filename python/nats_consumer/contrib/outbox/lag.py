"""How far the relay is behind."""

from dataclasses import dataclass

from django.db.models import Count, DurationField, ExpressionWrapper, F, Max, Q
from django.db.models.functions import Now

from .models import OutboxMessage


@dataclass(frozen=True)
class Lag:
    """Rows that wait in one database."""

    # All of them.
    rows: int
    # The age of the oldest, by the clock of the database. 0.0 without rows.
    oldest_seconds: float
    # Rows that a stream has refused; the rows behind them with the same key wait too.
    stuck: int


def lag(using: str = "default") -> Lag:
    """How far the relay of the database `using` is behind."""
    age = ExpressionWrapper(Now() - F("created_at"), output_field=DurationField())
    found = OutboxMessage.objects.using(using).aggregate(
        rows=Count("pk"), oldest=Max(age), stuck=Count("pk", filter=Q(attempts__gt=0))
    )
    oldest = found["oldest"]
    seconds = max(oldest.total_seconds(), 0.0) if oldest is not None else 0.0
    return Lag(found["rows"], seconds, found["stuck"])
