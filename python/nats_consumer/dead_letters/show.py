"""Dead letters as lines of text."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats_consumer._native import StoredLetter


HEADING = ("number", "stored (UTC)", "consumer", "subject", "reason")


def row(letter: "StoredLetter") -> tuple[str, ...]:
    """The cells of the letter's row in the table."""
    stored = letter.stored.strftime("%Y-%m-%d %H:%M:%S")
    return (str(letter.number), stored, letter.consumer, letter.subject, reason_of(letter))


def reason_of(letter: "StoredLetter") -> str:
    """The reason, with the error if there was one."""
    return f"{letter.reason}: {letter.error}" if letter.error else letter.reason


def description(letter: "StoredLetter") -> str:
    """Return all about the letter, on several lines."""
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
        return ["payload:    too large to show; stored separately, replayed with the message"]
    size = f"payload:    {len(letter.payload)} bytes"
    try:
        return [size, letter.payload.decode()]
    except UnicodeDecodeError:
        return [size, str(letter.payload)]


def hint(stream: str) -> str:
    """The remedy if `stream` is the one that keeps dead letters, and not their source."""
    source = stream.removesuffix("-dlq")
    return (
        "" if source == stream else f" To list the dead letters of {source}, use --stream {source}."
    )
