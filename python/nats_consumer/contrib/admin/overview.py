"""Consumers as their servers see them, and pauses of their durables."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect

from nats_consumer.client import Client
from nats_consumer.exceptions import NatsConsumerError
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.names import check_name
from nats_consumer.operate import durables
from nats_consumer.operate.board import short
from nats_consumer.operate.declared import Durable
from nats_consumer.operate.fleet import Worker
from nats_consumer.operate.listing import duration
from nats_consumer.operate.status import (
    EPHEMERAL,
    ConsumerStatus,
    ServerStatus,
    StreamStatus,
    status,
)

from .ask import SECONDS, change, check_stream
from .letters import number_of
from .record import recorded
from .select import Choice

if TYPE_CHECKING:
    from .admin import FleetAdmin

# Ages of the oldest message that a look asks for, one request each: pages ask every few seconds.
_MOST_AGES = 20
# Of these, a page shows the first.
_MOST_UNCLAIMED = 50

PAUSES = {900: "15 minutes", 3600: "1 hour", 8 * 3600: "8 hours", 24 * 3600: "1 day"}
_DEFAULT_PAUSE = 3600


def page(fleet: "FleetAdmin", request: HttpRequest) -> HttpResponse:
    """All consumers, with a table that refreshes itself."""
    return fleet.render(request, "consumers", "Consumers", tab="consumers", **_context())


def table(fleet: "FleetAdmin", request: HttpRequest) -> HttpResponse:
    """The part of the page that is refreshed."""
    return fleet.render(request, "consumers_table", "Consumers", **_context())


def durable_page(
    fleet: "FleetAdmin", request: HttpRequest, using: str, stream: str, durable: str
) -> HttpResponse:
    """Pause a durable or resume it. GET asks, and POST does it."""
    check_stream(using, stream)
    try:
        check_name(durable, "the name of a durable")
    except ValueError as error:
        raise Http404(str(error)) from error
    chosen = Durable(connection=using, stream=stream, name=durable)
    if request.method == "POST":
        return _changed(fleet, request, chosen)
    problem, info = "", None
    try:
        info = change(using, lambda client: client.jetstream().consumer_info(stream, durable))
    except NatsConsumerError as error:
        problem = str(error)
    return fleet.render(
        request,
        "durable",
        f"{stream}/{durable}",
        tab="consumers",
        durable=chosen,
        info=info,
        paused_for=duration((info.pause_remaining or 0) / 1e9) if info and info.paused else None,
        problem=problem,
        pauses=PAUSES.items(),
        default_pause=_DEFAULT_PAUSE,
    )


def _changed(fleet: "FleetAdmin", request: HttpRequest, durable: Durable) -> HttpResponse:
    verb = request.POST.get("verb", "")
    chosen = request.POST.get("seconds", "")
    seconds = number_of(chosen) or 0
    if verb not in ("pause", "resume") or (verb == "pause" and seconds not in PAUSES):
        raise Http404("No such action.")
    try:
        with recorded(
            request, f"{durable.connection}/{durable}", f"{verb.capitalize()} {durable}"
        ) as record:
            done = _pause(durable, seconds) if verb == "pause" else _resume(durable)
            record.say(done)
    except NatsConsumerError as error:
        messages.error(request, f"Not done for {durable}: {error}")
    else:
        messages.success(request, done)
    return HttpResponseRedirect(fleet.url("nats_admin_fleet_changelist"))


def _pause(durable: Durable, seconds: int) -> str:
    async def pause(client: Client) -> datetime:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        return await durables.pause(client, durable, until)

    until = change(durable.connection, pause)
    return f"Paused {durable} until {durables.written(until)}."


def _resume(durable: Durable) -> str:
    change(durable.connection, lambda client: durables.resume(client, durable))
    return f"Resumed {durable}."


def _context() -> dict[str, Any]:
    found = wait_for(status(ages=_MOST_AGES, seconds=SECONDS))
    return {
        "servers": [_server(each) for each in found],
        "several": len(found) > 1,
        "looked": datetime.now(UTC),
    }


def _server(of: ServerStatus) -> dict[str, Any]:
    """One server's part of the page."""
    return {
        "of": of,
        "rows": [_row(each) for each in of.consumers],
        "streams": [_stream(each) for each in of.streams],
        "processes": _processes(of.workers or []),
        "unclaimed": of.unclaimed[:_MOST_UNCLAIMED],
        "more_unclaimed": len(of.unclaimed) - _MOST_UNCLAIMED,
    }


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A consumer in the table."""

    of: ConsumerStatus
    state: str
    is_bad: bool
    pending: str
    unsettled: str
    again: str
    oldest: str
    workers: str
    dead: str
    letters: str
    has_durable: bool


def _row(it: ConsumerStatus) -> _Row:
    limit = "" if it.ack_pending_limit is None else f"/{short(it.ack_pending_limit)}"
    is_paused = it.state == "paused"
    return _Row(
        of=it,
        state=f"paused {duration(it.paused_seconds or 0)}" if is_paused else it.state or "unknown",
        is_bad=it.state in ("missing", "unattended", None) or bool(it.differs),
        pending=short(it.pending),
        unsettled=f"{short(it.ack_pending)}{limit}",
        again=short(it.redelivered),
        oldest=duration(it.oldest_seconds) if it.oldest_seconds else "-",
        workers=short(it.workers),
        dead=short(it.dead_letters),
        letters=Choice(
            using=it.connection,
            stream=it.stream,
            consumer="" if it.durable == EPHEMERAL else it.durable,
        ).address(),
        has_durable=it.pending is not None,
    )


def _stream(it: StreamStatus) -> dict[str, str]:
    shares = [
        used / most
        for used, most in ((it.messages, it.max_messages), (it.bytes, it.max_bytes))
        if most
    ]
    return {
        "name": it.name,
        "messages": short(it.messages),
        "bytes": short(it.bytes),
        "full": f"{max(shares):.0%}" if shares else "-",
        "replicas": str(it.replicas),
        "leader": it.leader or "-",
    }


def _processes(workers: list[Worker]) -> list[dict[str, Any]]:
    """The workers' processes, by host and number."""
    by_process: dict[tuple[str, int], list[Worker]] = defaultdict(list)
    for each in workers:
        by_process[each.host, each.pid].append(each)
    return [_process(*key, of) for key, of in sorted(by_process.items())]


def _process(host: str, pid: int, of: list[Worker]) -> dict[str, Any]:
    troubled = [f"{each.consumer} {each.state}" for each in of if each.state != "consuming"]
    return {
        "name": f"{host} {pid}",
        "version": of[0].version,
        "consumers": ", ".join(sorted(each.consumer for each in of)),
        "at_work": f"{sum(each.in_flight for each in of)}/{sum(each.concurrency for each in of)}",
        "received": short(sum(each.received for each in of)),
        "failed": short(sum(each.failed for each in of)),
        "repairs": short(sum(each.repairs for each in of)),
        "state": ", ".join(troubled) or "consuming",
        "is_bad": bool(troubled),
    }
