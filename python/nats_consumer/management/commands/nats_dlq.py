"""manage.py nats_dlq: look at dead letters, publish them again, or delete them."""

import re
from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from nats_consumer.connect.resolve import display_servers
from nats_consumer.dead_letters import (
    Selection,
    dead_letters,
    durable_called,
    streams_of_project,
    unknown_consumer,
)
from nats_consumer.exceptions import (
    MessageError,
    NatsConsumerError,
    PublishError,
    StreamError,
    StreamNotFound,
)
from nats_consumer.names import check_name

if TYPE_CHECKING:
    from nats_consumer._native import DeadLetters, StoredLetter

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LINES = 100


class Command(BaseCommand):
    """Ends with status 0, or 1 if something could not be done."""

    help = "List, show, replay or purge dead letters: messages that no attempt could handle."

    def add_arguments(self, parser: CommandParser) -> None:
        """One verb, then what it is about."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

        listing = verbs.add_parser("list", help="one line for each dead letter")
        # A name of its own: one that is left out would undo --stream.
        listing.add_argument("named", nargs="?", metavar="STREAM", help="as --stream")
        _add_selection(listing)
        listing.add_argument(
            "--limit",
            type=_limit,
            default=_LINES,
            help=f"how many to list for each stream (default: {_LINES})",
        )

        show = verbs.add_parser("show", help="everything about one dead letter")
        show.add_argument("numbers", nargs=1, type=int, metavar="NUMBER")
        show.add_argument("--stream", help=_STREAM)

        replay = verbs.add_parser("replay", help="publish again, then delete the dead letter")
        _add_choice(replay)

        purge = verbs.add_parser("purge", help="delete for good")
        _add_choice(purge)
        purge.add_argument("--yes", action="store_true", help="really delete")

        for verb in (listing, show, replay, purge):
            _add_options_of_django(verb)

    def handle(self, *_: Any, **options: Any) -> None:
        """Do what the verb says. Raises CommandError."""
        verbs: dict[str, Callable[[DeadLetters, list[str], dict[str, Any]], None]] = {
            "list": self._list,
            "show": self._show,
            "replay": self._replay,
            "purge": self._purge,
        }
        try:
            streams = _streams(options)
            if unknown := unknown_consumer(options.get("consumer") or ""):
                self.stderr.write(unknown)
            with dead_letters() as letters:
                self.stdout.write(f"Server: {display_servers(letters.server)}")
                verbs[options["verb"]](letters, streams, options)
        except (NatsConsumerError, ValueError) as error:
            raise CommandError(str(error)) from error

    def _list(self, letters: "DeadLetters", streams: list[str], options: dict[str, Any]) -> None:
        limit = options["limit"]
        for stream in streams:
            found = _selected(letters, stream, options)
            lines = [_line(letter) for letter in islice(found, limit)]
            self.stdout.write(f"\n{stream}: {_count(len(lines))}{'' if lines else _hint(stream)}")
            for line in _table(lines):
                self.stdout.write(f"  {line}")
            if next(found, None) is not None:
                self.stdout.write(f"  ... and more: list them with --limit above {limit}.")

    def _show(self, letters: "DeadLetters", streams: list[str], options: dict[str, Any]) -> None:
        for letter in _chosen(letters, streams, options):
            self.stdout.write(_description(letter))

    def _replay(self, letters: "DeadLetters", streams: list[str], options: dict[str, Any]) -> None:
        replayed = failed = 0
        for letter in _chosen(letters, streams, options):
            what = f"{letter.kept_in} {letter.number}: {letter.subject}"
            if options["dry_run"]:
                self.stdout.write(f"would replay {what} ({_why(letter)})")
                continue
            try:
                stream, sequence = letters.replay(letter)
            except (MessageError, PublishError, StreamError) as error:
                failed += 1
                self.stderr.write(f"{what} stays: {error}")
            else:
                replayed += 1
                self.stdout.write(f"{what} is message {sequence} of {stream} now")
        if options["dry_run"]:
            return
        self.stdout.write(f"Replayed: {_count(replayed)}.")
        if replayed:
            self.stdout.write(
                "Every consumer of these subjects gets them. Each has a fresh Nats-Msg-Id, so that "
                "none is taken for a duplicate; the first one is in Dlq-Original-Msg-Id."
            )
        if failed:
            raise CommandError(f"Not replayed: {_count(failed)}.")

    def _purge(self, letters: "DeadLetters", streams: list[str], options: dict[str, Any]) -> None:
        deletes = options["yes"] and not options["dry_run"]
        count = 0
        for letter in _chosen(letters, streams, options):
            count += 1
            what = f"{letter.kept_in} {letter.number}: {letter.subject} ({_why(letter)})"
            if deletes:
                letters.delete(letter)
            self.stdout.write(what if deletes else f"would delete {what}")
        if not count:
            self.stdout.write(f"Nothing to delete: no dead letter is selected.{_hint(streams[0])}")
        elif deletes:
            self.stdout.write(f"Deleted: {_count(count)}.")
        elif not options["dry_run"]:
            raise CommandError(f"Nothing was deleted. To delete {_count(count)}, add --yes.")


_STREAM = "the stream of the messages, such as orders (default: all of this project's consumers)"


def _add_selection(parser: CommandParser) -> None:
    parser.add_argument("--stream", help=_STREAM)
    parser.add_argument(
        "--consumer", help="who gave the message up: the consumer's class or its durable"
    )
    parser.add_argument("--reason", help="a text that the reason contains")
    parser.add_argument(
        "--older-than", type=_age, metavar="AGE", help="such as 90s, 15m, 12h, 7d or 2w"
    )
    parser.add_argument("--newer-than", type=_age, metavar="AGE", help="the same")


def _add_choice(parser: CommandParser) -> None:
    parser.add_argument(
        "numbers", nargs="*", type=int, metavar="NUMBER", help="as `list` shows them"
    )
    _add_selection(parser)
    parser.add_argument("--all", action="store_true", help="all dead letters")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _add_options_of_django(parser: CommandParser) -> None:
    # Django has read them already, wherever they stand, but each verb would refuse them behind it.
    for option in ("--settings", "--pythonpath"):
        parser.add_argument(option, default=SUPPRESS, help=SUPPRESS)
    parser.add_argument("-v", "--verbosity", type=int, default=SUPPRESS, help=SUPPRESS)
    for option in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        parser.add_argument(option, action="store_true", default=SUPPRESS, help=SUPPRESS)


def _limit(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no number of lines: write 1 or more")
    return int(text)


def _age(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no age: write 90s, 15m, 12h, 7d or 2w, with the unit")
    return float(match[1]) * _UNITS[match[2]]


def _streams(options: dict[str, Any]) -> list[str]:
    named = options.get("named")
    if named and options["stream"] and named != options["stream"]:
        raise CommandError(f"Name one stream, not both {named} and {options['stream']}.")
    options["stream"] = named or options["stream"]
    if options["stream"]:
        # A server that is asked for another name does not answer.
        check_name(options["stream"], "the name of a stream")
    streams = [options["stream"]] if options["stream"] else streams_of_project()
    if not streams:
        raise CommandError("This project has no consumers. Name the stream: --stream orders.")
    if options.get("numbers") and len(streams) > 1:
        raise CommandError(f"Each of {', '.join(streams)} counts its own: add --stream.")
    return streams


def _selection(options: dict[str, Any]) -> Selection:
    consumer = options["consumer"]
    return Selection(
        consumer=durable_called(consumer) if consumer else None,
        reason=options["reason"],
        older_than=options["older_than"],
        newer_than=options["newer_than"],
    )


def _chosen(
    letters: "DeadLetters", streams: list[str], options: dict[str, Any]
) -> "Iterator[StoredLetter]":
    """The dead letters that the numbers, the selection or --all mean."""
    if numbers := options["numbers"]:
        if options["verb"] != "show" and (_selection(options) != Selection() or options["all"]):
            raise CommandError("Give either numbers, or a selection or --all.")
        yield from [_numbered(letters, streams[0], number) for number in numbers]
        return
    if _selection(options) == Selection() and not options["all"]:
        raise CommandError(
            "Say which dead letters: their numbers, --consumer, --reason, --older-than, "
            "--newer-than, or --all."
        )
    for stream in streams:
        yield from _selected(letters, stream, options)


def _selected(
    letters: "DeadLetters", stream: str, options: dict[str, Any]
) -> "Iterator[StoredLetter]":
    try:
        return iter(letters.select(stream, _selection(options)))
    except StreamNotFound:
        if options["stream"]:
            raise
        # A consumer of the project may wait for its stream still.
        return iter(())


def _numbered(letters: "DeadLetters", stream: str, number: int) -> "StoredLetter":
    try:
        letter = letters.get(stream, number)
    except StreamNotFound:
        letter = None
    if letter is None:
        raise CommandError(
            f"Stream {stream} has no dead letter {number}. See `nats_dlq list`.{_hint(stream)}"
        )
    return letter


def _hint(stream: str) -> str:
    """For who names the stream that keeps the dead letters, not the one they come from."""
    source = stream.removesuffix("-dlq")
    return "" if source == stream else f" Those of {source} are listed with --stream {source}."


def _line(letter: "StoredLetter") -> tuple[str, ...]:
    stored = letter.stored.strftime("%Y-%m-%d %H:%M:%S")
    return (str(letter.number), stored, letter.consumer, letter.subject, _why(letter))


def _table(lines: list[tuple[str, ...]]) -> Iterator[str]:
    if not lines:
        return
    rows = [("number", "stored (UTC)", "consumer", "subject", "reason"), *lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _why(letter: "StoredLetter") -> str:
    return f"{letter.reason}: {letter.error}" if letter.error else letter.reason


def _description(letter: "StoredLetter") -> str:
    lines = [
        f"{letter.kept_in} {letter.number}",
        f"stored:     {letter.stored.isoformat()}",
        f"subject:    {letter.subject}",
        f"message:    {letter.sequence} of stream {letter.stream}",
        f"consumer:   {letter.consumer}",
        f"reason:     {letter.reason}",
        f"error:      {letter.error or '-'}",
        f"deliveries: {letter.deliveries}",
        "headers:" if letter.headers else "headers:    -",
        *(f"  {name}: {value}" for name, value in letter.headers),
    ]
    return "\n".join([*lines, *_payload(letter)])


def _payload(letter: "StoredLetter") -> list[str]:
    if letter.payload is None:
        return ["payload:    too large to be shown here: kept apart, and replayed with the message"]
    size = f"payload:    {len(letter.payload)} bytes"
    try:
        return [size, letter.payload.decode()]
    except UnicodeDecodeError:
        return [size, str(letter.payload)]


def _count(number: int) -> str:
    return f"{number} dead letter{'' if number == 1 else 's'}"
