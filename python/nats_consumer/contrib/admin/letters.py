"""Dead letters: the list of a stream, and one with all it has."""

from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from django.http import Http404, HttpRequest, HttpResponse

from nats_consumer.dead_letters.show import reason_of
from nats_consumer.exceptions import NatsConsumerError, StreamNotFound
from nats_consumer.operate.declared import declared_options
from nats_consumer.terminal import visible

from .ask import SECONDS, check_stream, open_letters, streams
from .payload import FORMS, shown_headers, shown_payload
from .select import AGES, Choice

if TYPE_CHECKING:
    from nats_consumer._native import DeadLetters, StoredLetter

    from .admin import FleetAdmin

PAGE = 50
# Below the largest number of the engine, and of a list.
_MOST_DIGITS = 18
# Of an error, a row shows the begin.
_MOST_OF_REASON = 160


@dataclass
class Found:
    """Dead letters for one page, newest first. `older` is where the next page begins: below this
    number. `was_short` says that the time was over before the page was full."""

    letters: list["StoredLetter"] = field(default_factory=list)
    older: int | None = None
    was_short: bool = False
    problem: str = ""


def page(fleet: "FleetAdmin", request: HttpRequest) -> HttpResponse:
    """The dead letters of a stream that match."""
    if not streams():
        return fleet.render(request, "letters", "Dead letters", tab="letters", choice=None)
    choice = Choice.of(request.GET)
    before = number_of(request.GET.get("before", ""))
    found = _found(choice, before)
    return fleet.render(
        request,
        "letters",
        "Dead letters",
        tab="letters",
        choice=choice,
        rows=[_row(each) for each in found.letters],
        problem=found.problem,
        was_short=found.was_short,
        seconds=SECONDS,
        older=choice.address(before=found.older) if found.older else None,
        newest=choice.address() if before else None,
        filters=_filters(choice),
        everything=Choice(using=choice.using, stream=choice.stream).address(),
    )


def one(
    fleet: "FleetAdmin", request: HttpRequest, using: str, stream: str, number: int
) -> HttpResponse:
    """One dead letter. Its headers and its payload are for those who may see payloads."""
    check_stream(using, stream)
    if number_of(str(number)) is None:
        raise Http404("This dead letter does not exist.")
    letter, problem = None, ""
    try:
        with open_letters(using) as letters:
            letter = letters.get(stream, number)
    except StreamNotFound:
        pass  # without dead letters, there is none of this number
    except NatsConsumerError as error:
        problem = str(error)
    if letter is None and not problem:
        raise Http404("This dead letter does not exist. It may have been replayed or discarded.")
    shown: dict[str, Any] = {}
    if letter is not None and fleet.may(request, "view_payload"):
        form = request.GET.get("as", "")
        shown = {
            "payload": shown_payload(letter, form if form in FORMS else None),
            "headers": shown_headers(letter.headers),
            "forms": FORMS,
        }
    return fleet.render(
        request,
        "letter",
        f"Dead letter {number} of {stream}",
        tab="letters",
        choice=Choice(using=using, stream=stream),
        letter=letter,
        texts=_texts(letter) if letter else [],
        problem=problem,
        **shown,
    )


def number_of(text: str) -> int | None:
    """The number in an address, or None. No message has the number 0, or one of more digits."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
    return int(text) or None if is_number else None


def _found(choice: Choice, before: int | None) -> Found:
    found = Found()
    try:
        with open_letters(choice.using) as letters:
            _fill(found, choice, letters, before)
    except NatsConsumerError as error:
        found.problem = str(error)
    return found


def _fill(found: Found, choice: Choice, letters: "DeadLetters", before: int | None) -> None:
    """Take letters until the page is full or the time is over."""
    numbers = None
    if before is not None:
        first, last = choice.bounds(letters) or (1, 0)
        numbers = range(min(before - 1, last), first - 1, -1)
    end = monotonic() + SECONDS
    for number, each in choice.found(letters, numbers, newest_first=True):
        if len(found.letters) == PAGE:
            found.older = number + 1
            return
        if each:
            found.letters.append(each)
        # Behind the first number, so that searching on comes to an end.
        if monotonic() > end:
            found.was_short = len(found.letters) < PAGE
            found.older = number
            return


def _row(letter: "StoredLetter") -> dict[str, Any]:
    reason = visible(reason_of(letter))
    return {
        "number": letter.number,
        "stored": letter.stored,
        "consumer": visible(letter.consumer),
        "subject": visible(letter.subject),
        "reason": reason[:_MOST_OF_REASON],
        "is_cut": len(reason) > _MOST_OF_REASON,
    }


def _texts(letter: "StoredLetter") -> list[tuple[str, Any]]:
    """The rows that everybody who sees dead letters may see of one."""
    return [
        ("Stored", letter.stored),
        ("Subject", visible(letter.subject)),
        ("Message", f"{letter.sequence} of stream {visible(letter.stream)}"),
        ("Consumer", visible(letter.consumer)),
        ("Reason", visible(letter.reason)),
        ("Error", visible(letter.error or "-")),
        ("Deliveries", letter.deliveries),
    ]


def _filters(choice: Choice) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """The choices beside the list: a title, and labels with addresses."""
    known = streams()
    several = len({using for using, _ in known}) > 1
    sources = [
        (
            f"{stream} ({using})" if several else stream,
            Choice(using=using, stream=stream).address(),
            (using, stream) == (choice.using, choice.stream),
        )
        for using, stream in known
    ]
    of_stream = [
        each for each in declared_options(using=choice.using) if each.stream == choice.stream
    ]
    durables = {each.durable: each.name for each in of_stream if each.ephemeral is None}
    if choice.consumer:
        durables.setdefault(choice.consumer, choice.consumer)
    consumers = [("All", choice.but(consumer="").address(), not choice.consumer)] + [
        (name, choice.but(consumer=durable).address(), durable == choice.consumer)
        for durable, name in durables.items()
    ]
    ages = [
        (label, choice.but(age=key).address(), key == choice.age)
        for key, (label, _) in AGES.items()
    ]
    return [("stream", sources), ("consumer", consumers), ("age", ages)]
