"""Command line arguments of `nats_dlq`."""

import re
from argparse import SUPPRESS, ArgumentTypeError

from django.core.management.base import CommandParser

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

STREAM_HELP = (
    "the stream of the messages, such as orders (default: all of this project's consumers)"
)


def add_selection(parser: CommandParser) -> None:
    """The options that select dead letters by what they are."""
    parser.add_argument("--stream", help=STREAM_HELP)
    parser.add_argument(
        "--consumer", help="the consumer that gave up on the message: its class or its durable"
    )
    parser.add_argument("--reason", help="text that the reason contains")
    parser.add_argument(
        "--older-than", type=_age, metavar="AGE", help="such as 90s, 15m, 12h, 7d or 2w"
    )
    parser.add_argument("--newer-than", type=_age, metavar="AGE", help="the same")


def add_choice(parser: CommandParser) -> None:
    """Numbers, or the options that select."""
    parser.add_argument(
        "numbers", nargs="*", type=int, metavar="NUMBER", help="as `list` shows them"
    )
    add_selection(parser)
    parser.add_argument("--all", action="store_true", help="all dead letters")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")


def add_django_options(parser: CommandParser) -> None:
    """The options of every Django command, accepted behind the verb too."""
    # Django has read them already, but the parser of a verb does not know them.
    for option in ("--settings", "--pythonpath"):
        parser.add_argument(option, default=SUPPRESS, help=SUPPRESS)
    parser.add_argument("-v", "--verbosity", type=int, default=SUPPRESS, help=SUPPRESS)
    for option in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        parser.add_argument(option, action="store_true", default=SUPPRESS, help=SUPPRESS)


def line_count(text: str) -> int:
    """A number of lines, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a number of lines: write 1 or more")
    return int(text)


def _age(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not an age: write 90s, 15m, 12h, 7d or 2w")
    return float(match[1]) * _UNITS[match[2]]
