"""What the payload of a message may be."""


def checked_payload(payload: bytes | bytearray | memoryview) -> bytes:
    """The payload as bytes. Raises TypeError, saying what to do about what is none."""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, bytearray | memoryview):
        return bytes(payload)
    raise TypeError(
        f"payload must be bytes, not {type(payload).__name__}: encode it, as in "
        "'text'.encode(), or let nats_consumer.publish() do so."
    )
