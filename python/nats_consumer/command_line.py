"""Parts of commands: verbs, ages and times, Django's options, and a question before it is done."""

import os
import re
import signal
from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")

# Below the largest number of the engine, and of a list.
_MOST_DIGITS = 18
# In seconds. What is longer leads to times that nothing can write.
_LONGEST_AGE = 100 * 365 * 86_400

# The exit code of a program that SIGPIPE ends.
_NOBODY_READS = 128 + signal.SIGPIPE


class PrintingCommand(BaseCommand):
    """A command that prints texts of strangers, perhaps many of them. It ends without a traceback
    if its reader ends first, as `head` does."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Do the work of BaseCommand.execute()."""
        stream = options.get("stdout") or self.stdout
        # A terminal that lacks a character shows its number.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
        try:
            output = super().execute(*args, **options)
            self.stdout.flush()
        except BrokenPipeError:
            # What Python flushes at its end goes nowhere, too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stdout.fileno())
            raise SystemExit(_NOBODY_READS) from None
        return output


class Verbs:
    """The verbs of a command, each with a parser of its own. `shared` are functions that add the
    arguments that every verb takes."""

    def __init__(self, parser: CommandParser, *shared: Callable[[CommandParser], None]) -> None:
        self._parsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        self._shared = shared

    def add(self, name: str, run: Callable[..., Any], help: str) -> CommandParser:  # noqa: A002
        """Add a verb and return its parser. `run` becomes the option of that name."""
        verb = self._parsers.add_parser(name, help=help)
        verb.set_defaults(run=run)
        for add in self._shared:
            add(verb)
        _add_django_options(verb)
        return verb


def _add_django_options(parser: CommandParser) -> None:
    """The options of every Django command, accepted behind the verb too."""
    # Django has read them already, but the parser of a verb does not know them.
    for option in ("--settings", "--pythonpath"):
        parser.add_argument(option, default=SUPPRESS, help=SUPPRESS)
    parser.add_argument("-v", "--verbosity", type=int, default=SUPPRESS, help=SUPPRESS)
    for option in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        parser.add_argument(option, action="store_true", default=SUPPRESS, help=SUPPRESS)


def add_database(parser: CommandParser) -> None:
    """The option of commands for the tables of an app."""
    parser.add_argument(
        "--database", help="alias of the database (default: each that has the table)"
    )


def add_consumers(parser: CommandParser) -> None:
    """The consumers that a command is about."""
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="class names, or app_label.Name; default: all"
    )


def positive(text: str) -> int:
    """Read a number of a message, or of lines, for argparse."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else 0
    if number < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1 to {10**_MOST_DIGITS - 1}")
    return number


def age(text: str) -> float:
    """Read an age, such as 15m, as seconds, for argparse. A number alone is none: a user of
    `--older-than 30` may mean days."""
    if _AGE.fullmatch(text) is None:
        raise ArgumentTypeError(f"{text!r} is not an age: write 90s, 15m, 12h, 7d or 2w")
    seconds = seconds_of(text)
    if seconds > _LONGEST_AGE:
        raise ArgumentTypeError(f"{text!r} is more than a century")
    return seconds


def duration(text: str) -> float:
    """Read a duration, such as 15m or a number of seconds, as seconds, for argparse."""
    try:
        return seconds_of(text)
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is not a duration: write 90s, 15m, 12h, 7d, 2w or a number of seconds"
        ) from None


def seconds_of(text: str) -> float:
    """The seconds of a duration, such as 15m or a number of seconds. Raises ValueError."""
    match = _AGE.fullmatch(text)
    return float(match[1]) * _UNITS[match[2]] if match else float(text)


def counted(number: int, noun: str) -> str:
    """The number with its noun, as in "1 message" and "2 messages"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def is_wanted(question: str, *, otherwise: str) -> bool:
    """Ask at the terminal; whether the answer is yes. Raises CommandError without a terminal;
    `otherwise` is the option that is needed then."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise CommandError(
            f"The command cannot ask for confirmation without a terminal. Add {otherwise}."
        ) from None
