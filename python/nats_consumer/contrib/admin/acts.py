"""Replay and discard dead letters: the selected ones, or all that match."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict

from nats_consumer.command_line import counted
from nats_consumer.dead_letters.show import reason_of
from nats_consumer.exceptions import (
    MessageError,
    NatsConsumerError,
    NoStreamResponse,
    NotStored,
    PayloadTooLarge,
)
from nats_consumer.terminal import visible

from .ask import SECONDS, open_letters
from .letters import PAGE, number_of
from .record import recorded
from .select import Choice, numbered

if TYPE_CHECKING:
    from nats_consumer._native import DeadLetters, StoredLetter

    from .admin import FleetAdmin

# Dead letters of one request, and the seconds after which it ends before.
MOST = 500
_MOST_SECONDS = 10.0
# Of those that failed, a page shows the first.
_MOST_SHOWN = 5

_DONE = {"replay": "Replayed", "discard": "Discarded"}
# The others may work; after another error, none would.
_OF_ONE_LETTER = (MessageError, NoStreamResponse, NotStored, PayloadTooLarge)


@dataclass(frozen=True, kw_only=True)
class Order:
    """An action, and the dead letters it is for. Without `numbers`, these are all that match and
    have a number above `after` and up to `until`: what becomes a dead letter meanwhile is left
    alone."""

    choice: Choice
    verb: str
    numbers: tuple[int, ...] = ()
    is_all: bool = False
    after: int = 0
    until: int = 0

    @classmethod
    def of(cls, query: QueryDict) -> "Order":
        """The order of an address or of a form. Raises Http404 for an unknown action."""
        verb = query.get("verb", "")
        if verb not in _DONE:
            raise Http404("No such action.")
        numbers = [number_of(each) for each in query.getlist("number")[:PAGE]]
        return cls(
            choice=Choice.of(query),
            verb=verb,
            numbers=tuple(each for each in numbers if each is not None),
            is_all=query.get("scope") == "all",
            after=number_of(query.get("after", "")) or 0,
            until=number_of(query.get("until", "")) or 0,
        )

    def values(self, until: int, after: int | None = None) -> list[tuple[str, str]]:
        """The order as fields of a form."""
        numbers = [("number", str(each)) for each in self.numbers] if not self.is_all else []
        bounds = [("after", str(self.after if after is None else after)), ("until", str(until))]
        return [
            *self.choice.values().items(),
            ("verb", self.verb),
            *(numbers or [("scope", "all"), *bounds]),
        ]

    def found(
        self, letters: "DeadLetters", until: int
    ) -> "Iterator[tuple[int, StoredLetter | None]]":
        """Number by number up to `until`, oldest first, the dead letter if one is meant and is
        there now."""
        if not self.is_all:
            for number in sorted(self.numbers):
                yield number, numbered(letters, self.choice.stream, number)
            return
        # At the begin, numbers may be missing that nobody needs to ask for.
        numbers = range(self.after + 1, until + 1) if self.after else None
        for number, each in self.choice.found(letters, numbers):
            if number > until:
                return
            yield number, each


@dataclass
class Result:
    """The letters that were done, by number. `last` is the last one that was tried; `has_more`
    says that others are left, and `problem` why."""

    done: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    last: int = 0
    has_more: bool = False
    problem: str = ""


def page(fleet: "FleetAdmin", request: HttpRequest) -> HttpResponse:
    """GET says what would be done, and POST does it."""
    order = Order.of(request.POST if request.method == "POST" else request.GET)
    listing = f"{fleet.url('nats_admin_letters')}{order.choice.address()}"
    if not order.is_all and not order.numbers:
        messages.warning(request, "No dead letter was selected.")
        return HttpResponseRedirect(listing)
    if request.method == "POST":
        return _acted(fleet, request, order, listing)
    return fleet.render(
        request,
        "act",
        f"{order.verb.capitalize()} dead letters",
        tab="letters",
        order=order,
        listing=listing,
        **_preview(order),
    )


def _preview(order: Order) -> dict[str, Any]:
    """How many are meant, and the fields of the form that does it."""
    try:
        with open_letters(order.choice.using) as letters:
            shown, count, until, is_all = _counted(order, letters)
    except NatsConsumerError as error:
        return {"problem": str(error), "count": 0}
    return {
        "rows": shown,
        "count": count,
        "counted": counted(count, "dead letter"),
        "is_counted": is_all,
        "most": MOST,
        "values": order.values(until),
    }


def _counted(order: Order, letters: "DeadLetters") -> tuple[list[str], int, int, bool]:
    """Some of those that are meant, their number, the last number, and whether the time was enough
    to count all."""
    until = order.until
    if order.is_all and not until:
        _, until = order.choice.bounds(letters) or (1, 0)
    shown: list[str] = []
    count, end = 0, monotonic() + SECONDS
    for _, each in order.found(letters, until):
        if each:
            count += 1
            shown += [] if order.is_all else [_line(each)]
        if monotonic() > end:
            return shown, count, until, False
    return shown, count, until, True


def _acted(fleet: "FleetAdmin", request: HttpRequest, order: Order, listing: str) -> HttpResponse:
    choice = order.choice
    what = "all that match" if order.is_all else "the selected"
    doing = f"{order.verb.capitalize()} dead letters of {choice.stream}, {what} ({choice})"
    with recorded(request, choice.source, doing, deletes=order.verb == "discard") as record:
        result = Result()
        try:
            with open_letters(choice.using) as letters:
                _act_on_each(letters, order, result)
        except NatsConsumerError as error:
            result.problem = str(error)
        finally:
            record.say(f"{doing}: {_told(order.verb, result)}")
    _say(request, order, result)
    if result.has_more and order.is_all:
        left = QueryDict(mutable=True)
        for name, value in order.values(order.until, result.last):
            left.appendlist(name, value)
        return HttpResponseRedirect(f"{fleet.url('nats_admin_act')}?{left.urlencode()}")
    return HttpResponseRedirect(listing)


def _act_on_each(letters: "DeadLetters", order: Order, result: Result) -> None:
    act: Callable[[StoredLetter], object] = (
        letters.replay if order.verb == "replay" else letters.delete
    )
    end = monotonic() + _MOST_SECONDS
    result.last = order.after
    for number, each in order.found(letters, order.until):
        result.has_more = True
        if len(result.done) + len(result.failed) == MOST:
            return
        if each:
            _act_on(act, each, result)
        result.last = number
        if monotonic() > end:
            return
    result.has_more = False


def _act_on(
    act: Callable[["StoredLetter"], object], letter: "StoredLetter", result: Result
) -> None:
    try:
        act(letter)
    except _OF_ONE_LETTER as error:
        result.failed.append(f"{letter.number}: {error}")
    else:
        result.done.append(letter.number)


def _say(request: HttpRequest, order: Order, result: Result) -> None:
    """Tell the user on the next page."""
    done = counted(len(result.done), "dead letter")
    text = f"{_DONE[order.verb]}: {done} of {order.choice.stream}."
    (messages.success if result.done else messages.warning)(request, text)
    for each in result.failed[:_MOST_SHOWN]:
        messages.error(request, visible(f"Not done for {each}"))
    if len(result.failed) > _MOST_SHOWN:
        messages.error(request, f"Not done for {len(result.failed)} in all.")
    if result.problem:
        messages.error(request, visible(result.problem))
    elif result.has_more and not order.is_all:
        messages.warning(request, "The time limit was reached before all were done.")


def _told(verb: str, result: Result) -> str:
    """The result as the log has it."""
    told = f"{_DONE[verb].lower()} {len(result.done)}"
    numbers = f" ({_ranges(result.done)})" if result.done else ""
    failed = f", failed for {len(result.failed)}" if result.failed else ""
    problem = f". {result.problem}" if result.problem else "."
    return f"{told}{numbers}{failed}{problem}"


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers in order, those in a row as one: "1-3, 7"."""
    found: list[list[int]] = []
    for each in numbers:
        if found and each == found[-1][1] + 1:
            found[-1][1] = each
        else:
            found.append([each, each])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def _line(letter: "StoredLetter") -> str:
    return visible(f"{letter.number}: {letter.subject} ({reason_of(letter)})")
