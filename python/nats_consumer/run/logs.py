"""Logging: the engine's records come to Python, and the command's are visible."""

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from nats_consumer.terminal import visible

_ROOT = logging.getLogger("nats_consumer")
_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_POLL_SECONDS = 0.5

TakeLogs = Callable[[float], list[tuple[int, str, str]]]


class LogPump:
    """Carries the engine's log records to Python's loggers in a daemon thread, while it is
    entered. `take_logs(timeout)` waits for records up to `timeout` seconds."""

    def __init__(self, take_logs: TakeLogs) -> None:
        self._take_logs = take_logs
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nats_consumer-logs", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        # Joined, because a thread inside the engine must not outlive the interpreter.
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._pass_on(_POLL_SECONDS)
        self._pass_on(0.0)

    def _pass_on(self, timeout: float) -> None:
        for level, name, text in self._take_logs(timeout):
            logging.getLogger(name).log(level, "%s", text)


def make_visible(level: str | None) -> None:
    """Show the `nats_consumer` loggers on stderr, from INFO on, unless the project's LOGGING has a
    handler for them. A `level` that is given holds in any case."""
    if not _ROOT.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(_Visible(_FORMAT))
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
