"""The engine's log records come to Python's loggers."""

import atexit
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

_POLL_SECONDS = 0.5
# The process's own pump is woken at its end.
_LONG_SECONDS = 3600.0
# An extra field with the name of one of these is an error, which would end the pump.
_OF_LOGGING = {*vars(logging.makeLogRecord({})), "message", "asctime"}

# Level, logger, text and fields of each record.
TakeLogs = Callable[[float], list[tuple[int, str, str, dict[str, Any]]]]
WakeLogs = Callable[[], None]


class LogPump:
    """Carries the engine's log records to Python's loggers in a daemon thread, while it is
    entered. `take_logs(timeout)` waits for records up to `timeout` seconds, `wake_logs()` ends
    such a wait. A pump that `polls` returns from the wait twice a second in any case."""

    def __init__(
        self, take_logs: TakeLogs, wake_logs: WakeLogs | None = None, *, polls: bool = False
    ) -> None:
        self._take_logs = take_logs
        self._wake_logs = wake_logs
        self._wait = _POLL_SECONDS if polls or wake_logs is None else _LONG_SECONDS
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
        self.stop()

    def stop(self) -> None:
        """Pass on what is there and end."""
        self._stopping.set()
        # Joined, because a thread inside the engine must not outlive the interpreter.
        while self._thread.is_alive():
            if self._wake_logs is not None:
                self._wake_logs()  # it may have been about to wait
            self._thread.join(_POLL_SECONDS / 10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._pass_on(self._wait)
        self._pass_on(0.0)

    def _pass_on(self, timeout: float) -> None:
        for level, name, text, fields in self._take_logs(timeout):
            extra = {each: value for each, value in fields.items() if each not in _OF_LOGGING}
            try:
                logging.getLogger(name).log(level, "%s", text, extra=extra)
            except Exception:
                _report(text)


def _report(text: str) -> None:
    """Report an error of the project's logging as `logging` itself does, which catches those of
    handlers, but not those of filters and of the factory of records."""
    if logging.raiseExceptions and sys.stderr is not None:
        with suppress(OSError, ValueError):  # stderr may be closed
            traceback.print_exc()
            sys.stderr.write(f"nats_consumer: the log line was: {text}\n")


_carrying: int | None = None
_starting = threading.Lock()


def carry_logs(take_logs: TakeLogs, wake_logs: WakeLogs) -> None:
    """Carry the engine's records to Python's loggers from now on, as long as this process lives."""
    global _carrying
    if _carrying == os.getpid():
        return
    with _starting:
        # After a fork the thread is the parent's.
        if _carrying != os.getpid():
            pump = LogPump(take_logs, wake_logs)
            pump.__enter__()
            atexit.register(pump.stop)
            _carrying = os.getpid()
