"""Logging: what the command logs is visible."""

import logging
import sys
from contextlib import suppress

from nats_consumer.terminal import visible

_ROOT = logging.getLogger("nats_consumer")
_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_FORMAT_OF_A_WORKER = _FORMAT.replace(" %(name)s", " %(process)d %(name)s")


def make_visible(level: str | None, *, is_worker: bool = False) -> None:
    """Show the `nats_consumer` loggers on stderr, from INFO on, unless the project's LOGGING has a
    handler for them. A `level` that is given holds in any case. Lines of a worker, which shares its
    stderr with others, have the process id."""
    if not _ROOT.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(_Visible(_FORMAT_OF_A_WORKER if is_worker else _FORMAT))
        _ROOT.addHandler(handler)
        level = level or "INFO"
    if level:
        _ROOT.setLevel(level)


class _Visible(logging.Formatter):
    """Errors quote what strangers sent."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def flush() -> None:
    """Write out what any handler and the standard streams still hold; for an exit that skips
    Python's own clean-up."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # A pipe without a reader, or a write that a signal interrupted: exit anyway.
        with suppress(Exception):
            stream.flush()
