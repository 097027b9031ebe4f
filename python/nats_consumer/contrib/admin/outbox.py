"""Rows of the outbox that wait for the relay."""

from typing import TYPE_CHECKING, Any

from django.db import Error
from django.http import HttpRequest, HttpResponse

from nats_consumer.contrib.outbox.lag import lag
from nats_consumer.contrib.outbox.models import OutboxMessage
from nats_consumer.contrib.outbox.run import databases
from nats_consumer.operate.listing import duration

if TYPE_CHECKING:
    from .admin import FleetAdmin

_MOST_ROWS = 100
# Not the payload: nobody needs it to see what waits.
_FIELDS = ("id", "subject", "key", "created_at", "attempts", "next_attempt_at", "error")


def page(fleet: "FleetAdmin", request: HttpRequest) -> HttpResponse:
    """The rows of each database that has the outbox, oldest first."""
    found = [_waiting(each) for each in databases()]
    return fleet.render(request, "outbox", "Outbox", tab="outbox", databases=found, most=_MOST_ROWS)


def _waiting(using: str) -> dict[str, Any]:
    try:
        waiting = lag(using)
        rows = list(OutboxMessage.objects.using(using).values(*_FIELDS)[:_MOST_ROWS])
    except Error as error:
        return {"alias": using, "problem": str(error)}
    return {
        "alias": using,
        "lag": waiting,
        "oldest": duration(waiting.oldest_seconds) if waiting.rows else "-",
        "rows": rows,
    }
