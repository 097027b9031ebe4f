"""Payload and headers of a message to publish."""

from collections.abc import Mapping


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, if they are strings. Raises TypeError, naming the one that is not."""
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a dict of strings, not {headers!r}.")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(
                f"headers must have strings as names and values, not {name!r}: {value!r}."
            )
    return dict(headers)


def checked_payload(payload: bytes | bytearray | memoryview) -> bytes:
    """The payload as bytes. Raises TypeError for other types, with the remedy."""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, bytearray | memoryview):
        return bytes(payload)
    raise TypeError(
        f"payload must be bytes, not {type(payload).__name__}: encode it, as in "
        "'text'.encode(), or let nats_consumer.publish() do so."
    )
