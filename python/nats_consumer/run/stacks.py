"""SIGUSR1: the process shows what it does, though it may hang."""

import faulthandler
import io
import signal
import sys
from contextlib import suppress

from nats_consumer import _native

# Windows has none.
_SHOW: signal.Signals | None = getattr(signal, "SIGUSR1", None)


def show_at_signal() -> None:
    """From now on SIGUSR1 writes to stderr the Python code that each thread runs, then the state of
    each consumer and the messages that it has not settled."""
    if _SHOW is None:
        return
    # In some hosts stderr is not a file. The engine still writes then.
    with suppress(io.UnsupportedOperation, AttributeError, ValueError):
        faulthandler.register(_SHOW, file=sys.stderr, all_threads=True)
    # Afterwards, because the engine's calls the one before it, and faulthandler's does not.
    _native.describe_at(_SHOW)
