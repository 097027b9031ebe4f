"""One direction of a NATS connection, in protocol frames."""

_WITH_PAYLOAD = (b"PUB", b"HPUB", b"MSG", b"HMSG")
_END = b"\r\n"


class Frames:
    """Cuts a stream of bytes into frames: a line each, with its payload where it has one."""

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, received: bytes) -> list[bytes]:
        """The frames that are complete now; the rest is kept until more is fed."""
        self._bytes += received
        frames = []
        while frame := self._first():
            self._bytes = self._bytes[len(frame) :]
            frames.append(frame)
        return frames

    def _first(self) -> bytes:
        line, end, _ = self._bytes.partition(_END)
        if not end:
            return b""
        verb, *arguments = line.split()
        size = len(line) + len(_END)
        if verb.upper() in _WITH_PAYLOAD:
            size += int(arguments[-1]) + len(_END)
        return self._bytes[:size] if len(self._bytes) >= size else b""
