"""Selection of dead letters by the options of `nats_dlq`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from nats_consumer.declare import registry
from nats_consumer.exceptions import StreamNotFound
from nats_consumer.names import check_name
from nats_consumer.settings import check_connection

from . import Selection, durable_called, streams_of_project
from .show import hint

if TYPE_CHECKING:
    from nats_consumer._native import DeadLetters, StoredLetter


def chosen_streams(options: dict[str, Any]) -> list[str]:
    """The streams that the options name; those of all consumers if they name none."""
    named = options.get("named")
    if named and options["stream"] and named != options["stream"]:
        raise CommandError(f"Name one stream, not {named} and {options['stream']}.")
    options["stream"] = named or options["stream"]
    if options["stream"]:
        # The server does not answer a request with an invalid name.
        check_name(options["stream"], "the name of a stream")
    using = check_connection(options["connection"])
    streams = [options["stream"]] if options["stream"] else streams_of_project(using)
    if not streams:
        raise CommandError(
            f"This project has no consumers on the connection {using}. Name the stream: --stream "
            f"orders{_other_connections(using)}"
        )
    if options.get("numbers") and len(streams) > 1:
        raise CommandError(
            f"Each of {', '.join(streams)} numbers its own dead letters: add --stream."
        )
    return streams


def _other_connections(using: str) -> str:
    others = sorted({each.connection for each in registry.consumers()} - {using})
    return f", or the connection: --connection {' or '.join(others)}." if others else "."


def _selection(options: dict[str, Any]) -> Selection:
    consumer = options["consumer"]
    return Selection(
        consumer=durable_called(consumer) if consumer else None,
        reason=options["reason"],
        older_than=options["older_than"],
        newer_than=options["newer_than"],
    )


def chosen_letters(
    letters: "DeadLetters", streams: list[str], options: dict[str, Any]
) -> "Iterator[StoredLetter]":
    """The dead letters that the numbers, the selection or --all name."""
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
        yield from selected_letters(letters, stream, options)


def selected_letters(
    letters: "DeadLetters", stream: str, options: dict[str, Any]
) -> "Iterator[StoredLetter]":
    """The dead letters of one stream that the options select."""
    try:
        newest = options.get("newest", False)
        return iter(letters.select(stream, _selection(options), newest))
    except StreamNotFound:
        if options["stream"]:
            raise
        # The stream of a consumer may not exist yet.
        return iter(())


def _numbered(letters: "DeadLetters", stream: str, number: int) -> "StoredLetter":
    try:
        letter = letters.get(stream, number)
    except StreamNotFound:
        letter = None
    if letter is None:
        raise CommandError(
            f"Stream {stream} has no dead letter {number}. See `nats_dlq list`.{hint(stream)}"
        )
    return letter
