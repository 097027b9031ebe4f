"""The end of a child that a handler forked: it must not become a second worker."""

import os
import sys
import traceback
from contextlib import suppress
from types import TracebackType
from typing import NoReturn, Self


class ChildrenEnd:
    """A body from which no forked child returns: the child ends there, as a script would, without
    what the worker does at its own end."""

    __slots__ = ("_pid",)

    def __enter__(self) -> Self:
        self._pid = os.getpid()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid:
            end(error)


def end(error: BaseException | None) -> NoReturn:
    """End this process with the status that `error` gives a script."""
    # Whatever cannot be written, the process ends.
    with suppress(BaseException):
        _show(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(_status(error))


def _show(error: BaseException | None) -> None:
    if isinstance(error, SystemExit):
        if error.code is not None and not isinstance(error.code, int):
            sys.stderr.write(f"{error.code}\n")
    elif error is not None:
        traceback.print_exception(error)


def _status(error: BaseException | None) -> int:
    code = error.code if isinstance(error, SystemExit) else None if error is None else 1
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    return 1
