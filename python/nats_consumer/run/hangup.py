"""SIGHUP: a request, or the end of the terminal that a process was started from."""

import os


class Terminal:
    """The controlling terminal, if there is one. SIGHUP tells a process that its terminal is gone;
    if it is not, or there was none, somebody has sent the signal."""

    def __init__(self) -> None:
        self._was_there = _is_there()

    def is_gone(self) -> bool:
        """Whether there was one, and it was closed."""
        return self._was_there and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
