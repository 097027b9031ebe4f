"""manage.py nats_status: what each consumer looks like from its server."""

import json
import shutil
import sys
import time
from argparse import ArgumentTypeError
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.management.base import CommandError, CommandParser

from nats_consumer.command_line import PrintingCommand, add_consumers, age, duration
from nats_consumer.connect.option import add_connection_or_any
from nats_consumer.exceptions import NatsConsumerError
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.operate.board import lines_of
from nats_consumer.operate.health import Level, Limits, problems
from nats_consumer.operate.status import ServerStatus, status
from nats_consumer.settings import DEFAULT_CONNECTION
from nats_consumer.terminal import visible

if TYPE_CHECKING:
    from nats_consumer.contrib.outbox.status import OutboxStatus

# Home, and clear from a line's end and below the last line: nothing flickers.
_HOME, _LINE_END, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR = "\x1b[2J"

# Ages of the oldest message that are asked for, one request each.
_MOST_AGES = 200


class Command(PrintingCommand):
    """Ends with status 0, or 1 if a server or a database could not be asked. With --check, the
    status is 0 if all is well, 1 for a warning, 2 if a consumer does not consume, an outbox is not
    relayed or a limit is exceeded, and 3 if a server or a database could not be asked."""

    help = "Show whether workers read for each consumer, how far behind it is, and since when."
    # A monitor that asks each minute needs no checks of the whole project.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        """The consumers, the form of the answer, and limits."""
        add_consumers(parser)
        add_connection_or_any(parser)
        parser.add_argument("--all", action="store_true", help="all streams of the account, too")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print JSON")
        form.add_argument(
            "--watch",
            type=_pause,
            metavar="DURATION",
            help="draw it again after this time, such as 2s, until Ctrl-C",
        )
        parser.add_argument(
            "--check",
            action="store_true",
            help="name what is wrong, with the exit codes of Nagios plugins",
        )
        parser.add_argument(
            "--max-pending",
            type=int,
            metavar="N",
            help="with --check: most messages of a consumer that are not settled",
        )
        parser.add_argument(
            "--max-oldest",
            type=age,
            metavar="AGE",
            help="with --check: largest age of the oldest of them, and of an outbox, such as 15m",
        )
        parser.add_argument(
            "--max-dead",
            type=int,
            metavar="N",
            help="with --check: most dead letters of a consumer",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Look, print and judge. Raises CommandError."""
        try:
            if options["watch"] and self.stdout.isatty():
                self._watch(options)
                return
            found, outboxes = self._look(options), _outboxes(options)
        except (NatsConsumerError, ValueError) as error:
            code = Level.UNKNOWN if options["check"] else 1
            raise CommandError(visible(str(error)), returncode=code) from error
        if options["json"]:
            whole: dict[str, Any] = {"version": 1, "servers": [asdict(each) for each in found]}
            if outboxes is not None:
                whole["outboxes"] = [asdict(each) for each in outboxes]
            self.stdout.write(json.dumps(whole, indent=2))
        elif not options["check"]:
            self._print(found, outboxes)
        self._judge(found, outboxes or [], options)

    def _look(self, options: dict[str, Any]) -> list[ServerStatus]:
        return wait_for(
            status(
                options["names"],
                options["connection"],
                all_streams=options["all"],
                ages=None if options["max_oldest"] is not None else _MOST_AGES,
            )
        )

    def _print(self, found: list[ServerStatus], outboxes: "list[OutboxStatus] | None") -> None:
        for line in _lines(found, outboxes, None):
            self.stdout.write(visible(line))

    def _judge(
        self,
        found: list[ServerStatus],
        outboxes: "list[OutboxStatus]",
        options: dict[str, Any],
    ) -> None:
        if not options["check"]:
            failed = [f"the server of {each.connection}" for each in found if each.error]
            failed += [f"the database {each.database}" for each in outboxes if each.error]
            if failed:
                raise CommandError(f"No answer from {', '.join(failed)}.")
            return
        limits = Limits(
            pending=options["max_pending"], oldest=options["max_oldest"], dead=options["max_dead"]
        )
        wrong = problems(found, limits, _outbox_problems(outboxes, limits))
        if not options["json"]:
            told = wrong or [(Level.OK, f"{sum(len(each.consumers) for each in found)} consumers")]
            for level, text in told:
                self.stdout.write(visible(f"{level.name}: {text}"))
        if wrong:
            raise SystemExit(int(wrong[0][0]))

    def _watch(self, options: dict[str, Any]) -> None:
        """Draw the same again and again, with deliveries a second between two looks."""
        before: dict[str, int] = {}
        since = time.monotonic()
        self.stdout.write(_CLEAR, ending="")
        try:
            while True:
                found, now = self._look(options), time.monotonic()
                delivered = _delivered(found)
                seconds = max(now - since, 0.001)
                rates = {
                    name: max(count - before[name], 0) / seconds
                    for name, count in delivered.items()
                    if name in before
                }
                before, since = delivered, now
                self._draw(_lines(found, _outboxes(options), rates))
                time.sleep(options["watch"])
        except KeyboardInterrupt:
            self.stdout.write("")

    def _draw(self, lines: list[str]) -> None:
        columns, rows = shutil.get_terminal_size()
        clock = time.strftime("%H:%M:%S")
        shown = [f"{clock}  Ctrl-C ends", *lines][: rows - 1]
        text = "".join(f"{visible(line)[:columns]}{_LINE_END}\n" for line in shown)
        sys.stdout.write(f"{_HOME}{text}{_BELOW}")
        sys.stdout.flush()


def _lines(
    found: list[ServerStatus],
    outboxes: "list[OutboxStatus] | None",
    rates: dict[str, float] | None,
) -> list[str]:
    width = shutil.get_terminal_size().columns
    lines = [line for each in found for line in (*lines_of(each, width, rates), "")]
    if outboxes:
        from nats_consumer.contrib.outbox.status import table_of

        lines += [*table_of(outboxes), ""]
    return lines


def _outboxes(options: dict[str, Any]) -> "list[OutboxStatus] | None":
    """The outboxes, which publish to one connection and belong to no consumer; None if their app is
    not installed or something else was asked for."""
    if options["names"] or options["connection"] not in (None, DEFAULT_CONNECTION):
        return None
    if not apps.is_installed("nats_consumer.contrib.outbox"):
        return None
    from nats_consumer.contrib.outbox.status import outboxes

    return outboxes()


def _outbox_problems(found: "list[OutboxStatus]", limits: Limits) -> list[tuple[Level, str]]:
    if not found:
        return []
    from nats_consumer.contrib.outbox.status import problems_of

    return list(problems_of(found, limits))


def _delivered(found: list[ServerStatus]) -> dict[str, int]:
    return {it.consumer: it.delivered or 0 for server in found for it in server.consumers}


def _pause(text: str) -> float:
    """Read the pause of --watch, for argparse."""
    seconds = duration(text)
    if not 0.1 <= seconds <= 3600:
        raise ArgumentTypeError(f"{text!r} is not from 0.1 to 3600 seconds")
    return seconds
