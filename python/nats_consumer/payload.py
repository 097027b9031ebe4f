"""What the payload of a message may be."""


def checked_payload(payload: bytes) -> bytes:
    """The payload, if it is bytes. Raises TypeError, saying what to do about anything else."""
    if isinstance(payload, bytes):
        return payload
    raise TypeError(
        f"payload must be bytes, not {type(payload).__name__}: encode it, as in "
        "'text'.encode(), or let nats_consumer.publish() do so."
    )
