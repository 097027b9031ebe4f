"""manage.py nats_dlq: list, show, replay and purge dead letters."""

from itertools import islice
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError, CommandParser

from nats_consumer.command_line import PrintingCommand, Verbs, counted, positive
from nats_consumer.connect.option import add_connection
from nats_consumer.connect.resolve import display_servers
from nats_consumer.dead_letters import (
    dead_letters,
    unknown_consumer,
)
from nats_consumer.dead_letters.arguments import (
    STREAM_HELP,
    add_choice,
    add_selection,
)
from nats_consumer.dead_letters.select import chosen_letters, chosen_streams, selected_letters
from nats_consumer.dead_letters.show import HEADING, description, hint, reason_of, row
from nats_consumer.exceptions import (
    MessageError,
    NatsConsumerError,
    PublishError,
    StreamError,
)
from nats_consumer.terminal import table, visible

if TYPE_CHECKING:
    from nats_consumer._native import DeadLetters, StoredLetter

_LINES = 100
# Dead letters that are replayed or deleted without waiting for each: their payloads are held.
_AT_ONCE = 64
# Errors that say nothing about the other dead letters.
_OF_ONE_LETTER = (MessageError, PublishError, StreamError)


class Command(PrintingCommand):
    """Ends with status 0, or 1 if something could not be done."""

    help = "List, show, replay or purge dead letters: messages that no attempt could handle."

    def add_arguments(self, parser: CommandParser) -> None:
        """One subcommand for each verb."""
        verbs = Verbs(parser, add_connection)

        listing = verbs.add("list", self._list, "one line for each dead letter")
        # Its own name, because an omitted positional would reset --stream.
        listing.add_argument("named", nargs="?", metavar="STREAM", help="the same as --stream")
        add_selection(listing)
        listing.add_argument(
            "--limit",
            type=positive,
            default=_LINES,
            help=f"how many to list for each stream (default: {_LINES})",
        )
        listing.add_argument("--newest", action="store_true", help="newest first")

        show = verbs.add("show", self._show, "everything about one dead letter")
        show.add_argument(
            "numbers", nargs=1, type=positive, metavar="NUMBER", help="the number that `list` shows"
        )
        show.add_argument("--stream", help=STREAM_HELP)

        replay = verbs.add("replay", self._replay, "publish again, then delete the dead letter")
        add_choice(replay)

        purge = verbs.add("purge", self._purge, "delete for good")
        add_choice(purge)
        purge.add_argument(
            "--yes", action="store_true", help="delete; without it, only say how many"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the verb. Raises CommandError."""
        try:
            streams = chosen_streams(options)
            if unknown := unknown_consumer(options.get("consumer") or ""):
                self.stderr.write(unknown)
            using = options["connection"]
            with dead_letters(using) as letters:
                self._say(f"Server: {display_servers(letters.server, using)}")
                options["run"](letters, streams, options)
        except (NatsConsumerError, ValueError) as error:
            raise CommandError(visible(str(error))) from error

    def _say(self, text: str) -> None:
        self.stdout.write(visible(text))

    def _list(self, letters: "DeadLetters", streams: list[str], options: dict[str, Any]) -> None:
        limit = options["limit"]
        for stream in streams:
            found = selected_letters(letters, stream, options)
            rows = [row(letter) for letter in islice(found, limit)]
            number = counted(len(rows), "dead letter")
            self._say(f"\n{stream}: {number}{'' if rows else hint(stream)}")
            for line in table(HEADING, rows):
                self._say(f"  {line}")
            if next(found, None) is not None:
                self._say(f"  ... and more: list them with --limit above {limit}.")

    def _show(self, letters: "DeadLetters", streams: list[str], options: dict[str, Any]) -> None:
        for letter in chosen_letters(letters, streams, options):
            self._say(description(letter))

    def _replay(self, letters: "DeadLetters", streams: list[str], options: dict[str, Any]) -> None:
        chosen = chosen_letters(letters, streams, options)
        if options["dry_run"]:
            for letter in chosen:
                self._say(f"would replay {_name(letter)} ({reason_of(letter)})")
            return
        replayed = failed = 0
        fatal: NatsConsumerError | None = None
        while some := list(islice(chosen, _AT_ONCE)):
            for letter, answer in zip(some, letters.replay_many(some), strict=True):
                if isinstance(answer, tuple):
                    replayed += 1
                    stream, sequence = answer
                    self._say(f"{_name(letter)} is now message {sequence} of {stream}")
                elif isinstance(answer, _OF_ONE_LETTER):
                    failed += 1
                    self.stderr.write(visible(f"{_name(letter)} was not replayed: {answer}"))
                else:
                    fatal = fatal or answer
            if fatal is not None:
                raise fatal
        self._say(f"Replayed: {counted(replayed, 'dead letter')}.")
        if replayed:
            self._say(
                "Every consumer of these subjects gets them. Each has a new Nats-Msg-Id, so the "
                "stream does not drop it as a duplicate; Dlq-Original-Msg-Id has the old one."
            )
        if failed:
            raise CommandError(f"Not replayed: {counted(failed, 'dead letter')}.")

    def _purge(self, letters: "DeadLetters", streams: list[str], options: dict[str, Any]) -> None:
        deletes = options["yes"] and not options["dry_run"]
        count = 0
        chosen = chosen_letters(letters, streams, options)
        while some := list(islice(chosen, _AT_ONCE)):
            count += len(some)
            if deletes:
                letters.delete_many(some)
            for letter in some:
                what = f"{_name(letter)} ({reason_of(letter)})"
                self._say(what if deletes else f"would delete {what}")
        if not count:
            self._say(f"Nothing to delete: no dead letter is selected.{hint(streams[0])}")
        elif deletes:
            self._say(f"Deleted: {counted(count, 'dead letter')}.")
        elif not options["dry_run"]:
            meant = counted(count, "dead letter")
            raise CommandError(f"Nothing was deleted. To delete {meant}, add --yes.")


def _name(letter: "StoredLetter") -> str:
    return f"{letter.kept_in} {letter.number}: {letter.subject}"
