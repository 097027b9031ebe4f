"""The option --connection of commands that talk to a server."""

from django.core.management.base import CommandParser

from nats_consumer.settings import DEFAULT_CONNECTION


def add_connection(parser: CommandParser) -> None:
    """The option, whose value is the alias of a connection."""
    parser.add_argument(
        "--connection",
        metavar="ALIAS",
        default=DEFAULT_CONNECTION,
        help=f'a key of NATS_CONSUMER["connections"] (default: {DEFAULT_CONNECTION})',
    )


def add_connection_or_any(parser: CommandParser) -> None:
    """The option, whose value is the alias of a connection, or None for each that is meant."""
    parser.add_argument(
        "--connection",
        metavar="ALIAS",
        help='a key of NATS_CONSUMER["connections"], or default (default: those of the consumers)',
    )


def connection_option(using: str) -> str:
    """Return the option as it is written behind a command; nothing for "default"."""
    return "" if using == DEFAULT_CONNECTION else f" --connection {using}"
