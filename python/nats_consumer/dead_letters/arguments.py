"""Command line arguments of `nats_dlq`."""

from django.core.management.base import CommandParser

from nats_consumer.command_line import age, positive

STREAM_HELP = (
    "the stream of the messages, such as orders (default: all of the connection's consumers)"
)


def add_selection(parser: CommandParser) -> None:
    """The options that select dead letters by what they are."""
    parser.add_argument("--stream", help=STREAM_HELP)
    parser.add_argument(
        "--consumer", help="the consumer that gave up on the message: its class or its durable"
    )
    parser.add_argument("--reason", help="text that the reason contains")
    parser.add_argument(
        "--older-than",
        type=age,
        metavar="AGE",
        help="stored this long ago or longer, such as 90s, 15m, 12h, 7d or 2w",
    )
    parser.add_argument(
        "--newer-than", type=age, metavar="AGE", help="stored within this time, such as 2h"
    )


def add_choice(parser: CommandParser) -> None:
    """Numbers, or the options that select."""
    parser.add_argument(
        "numbers", nargs="*", type=positive, metavar="NUMBER", help="the numbers that `list` shows"
    )
    add_selection(parser)
    parser.add_argument("--all", action="store_true", help="all dead letters")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
