"""A status as tables of text, for a terminal of any width from 80 columns."""

from collections import defaultdict
from collections.abc import Iterator

from nats_consumer.terminal import table

from .fleet import Worker
from .listing import duration
from .status import ConsumerStatus, ServerStatus, StreamStatus

# A terminal with this number of columns has room for the durables, too.
_WIDE = 110
# Below it, a rate has a decimal.
_FEW = 100
_UNITS = ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k"))


def lines_of(
    server: ServerStatus, width: int, rates: dict[str, float] | None = None
) -> Iterator[str]:
    """The status of one server. `rates` are deliveries a second by consumer, in a live view."""
    if server.error is None:
        yield f"Server: {server.server}"
    else:
        yield f"The server of the connection {server.connection} does not answer. {server.error}"
    yield from _section(_heading(width, rates), [_row(it, width, rates) for it in server.consumers])
    yield from _section(
        ("stream", "messages", "bytes", "full", "replicas", "leader"),
        [_stream_row(each) for each in server.streams],
    )
    yield from _section(
        ("process", "consumers", "at work", "received", "failed", "repairs", "state"),
        _worker_rows(server.workers or []),
    )
    if server.error is None:
        yield from _remarks(server)


def _section(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        yield ""
        yield from table(heading, rows)


def _heading(width: int, rates: dict[str, float] | None) -> tuple[str, ...]:
    return (
        "consumer",
        *(("durable",) if width >= _WIDE else ()),
        "state",
        "pending",
        "unsettled",
        *(("again",) if _has_room(width, rates) else ()),
        "oldest",
        "workers",
        "dead",
        *(("msg/s",) if rates is not None else ()),
    )


def _has_room(width: int, rates: dict[str, float] | None) -> bool:
    """Whether deliveries that came again fit beside the rates."""
    return width >= _WIDE or rates is None


def _row(it: ConsumerStatus, width: int, rates: dict[str, float] | None) -> tuple[str, ...]:
    limit = "" if it.ack_pending_limit is None else f"/{short(it.ack_pending_limit)}"
    return (
        it.consumer,
        *((f"{it.stream}/{it.durable}",) if width >= _WIDE else ()),
        _state(it),
        short(it.pending),
        f"{short(it.ack_pending)}{limit}",
        *((short(it.redelivered),) if _has_room(width, rates) else ()),
        "-" if not it.oldest_seconds else duration(it.oldest_seconds),
        short(it.workers),
        short(it.dead_letters),
        *((_rate(rates.get(it.consumer, 0.0)),) if rates is not None else ()),
    )


def _rate(rate: float) -> str:
    return f"{rate:.1f}" if rate < _FEW else short(round(rate))


def _state(it: ConsumerStatus) -> str:
    if it.state == "paused":
        return f"paused {duration(it.paused_seconds or 0)}"
    return f"{it.state or 'unknown'}{', differs' if it.differs else ''}"


def _stream_row(it: StreamStatus) -> tuple[str, ...]:
    shares = [
        used / most
        for used, most in ((it.messages, it.max_messages), (it.bytes, it.max_bytes))
        if most is not None
    ]
    full = f"{max(shares):.0%}" if shares else "-"
    return (
        it.name,
        short(it.messages),
        f"{short(it.bytes)}B" if it.bytes >= _UNITS[-1][0] else f"{it.bytes} B",
        full,
        str(it.replicas),
        it.leader or "-",
    )


def _worker_rows(workers: list[Worker]) -> list[tuple[str, ...]]:
    """One row for each process."""
    processes: dict[tuple[str, int], list[Worker]] = defaultdict(list)
    for each in workers:
        processes[each.host, each.pid].append(each)
    return [_process_row(f"{host} {pid}", of) for (host, pid), of in sorted(processes.items())]


def _process_row(name: str, of: list[Worker]) -> tuple[str, ...]:
    troubled = [f"{each.consumer} {each.state}" for each in of if each.state != "consuming"]
    places = sum(each.concurrency for each in of)
    return (
        name,
        str(len(of)),
        f"{sum(each.in_flight for each in of)}/{places}",
        short(sum(each.received for each in of)),
        short(sum(each.failed for each in of)),
        short(sum(each.repairs for each in of)),
        ", ".join(troubled) or "consuming",
    )


def _remarks(server: ServerStatus) -> Iterator[str]:
    remarks = [
        *(f"{it.consumer} differs: {each}" for it in server.consumers for each in it.differs),
        *(
            f"No class declares the durable {each.stream}/{each.durable}, "
            f"{short(each.pending)} messages pending."
            for each in server.unclaimed
        ),
        *(["Workers: this user may not ask them."] if server.workers is None else []),
    ]
    if remarks:
        yield ""
        yield from remarks


def short(number: int | None) -> str:
    """A number in at most six characters; `-` if it is not known."""
    if number is None:
        return "-"
    for size, unit in _UNITS:
        if number >= size:
            base = 1000 if unit == "k" else size
            return (
                f"{number / base:.3g}{unit}" if number < 999.5 * base else f"{number // base}{unit}"
            )
    return str(number)
