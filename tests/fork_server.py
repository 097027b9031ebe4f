"""A process that has imported what most programs of the tests import, and forks for each program.

`python fork_server.py <descriptor of a socket>`: tests/forked.py has the other end. A program finds
what it would find if Python had just started it; docs/decisions/0047 says what differs.
"""

import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import SourceFileLoader
from itertools import pairwise
from pathlib import Path
from types import ModuleType

# None of them starts a thread, reads Django's settings or leaves a file open.
PRELOADED = ["asyncio", "django.core.management", "nats_consumer"]
MAX_DESCRIPTORS = 64
MAX_REQUEST = 1 << 20


@dataclass(frozen=True)
class Program:
    """A script with its arguments, and the process it expects. Its open files get the numbers
    `descriptors`."""

    arguments: Sequence[str]
    folder: str
    environment: dict[str, str]
    ignored_signals: Sequence[int]
    blocked_signals: Sequence[int]
    descriptors: Sequence[int]

    def take_process(self, received: Sequence[int]) -> None:
        """Make this process that of the program. These are its open files."""
        _renumber(received, self.descriptors)
        for number in self.ignored_signals:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.blocked_signals)
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.argv[:] = self.arguments
        sys.orig_argv[:] = [sys.executable, *self.arguments]
        sys.path[0] = str(Path(self.arguments[0]).resolve().parent)

    def run(self) -> None:
        """Run the script as `__main__`."""
        path = os.path.abspath(self.arguments[0])  # noqa: PTH100 - so does Python
        main = ModuleType("__main__")
        main.__loader__ = SourceFileLoader("__main__", path)
        attributes = {"__file__": path, "__cached__": None, "__annotations__": {}}
        vars(main).update(attributes, __builtins__=sys.modules["builtins"])
        sys.modules["__main__"] = main
        exec(compile(Path(path).read_bytes(), path, "exec", dont_inherit=True), vars(main))


class Server:
    """Starts programs until the other end of `control` is closed, and reports how they end."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._running: dict[int, tuple[int, socket.socket]] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def serve(self) -> Program | None:
        """Return None at the end. Return in each child, too, with its program."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._running:
                    self._report_end(descriptor)
                    continue
                request, received, _, _ = socket.recv_fds(
                    self._control, MAX_REQUEST, MAX_DESCRIPTORS
                )
                if not request:
                    return None
                if (pid := os.fork()) == 0:
                    return self._become(Program(**json.loads(request)), received[1:])
                self._report_start(pid, received)

    def _become(self, program: Program, received: Sequence[int]) -> Program:
        # Their numbers are the program's now.
        self._control.detach()
        for _, report in self._running.values():
            report.detach()
        program.take_process(received)
        return program

    def _report_start(self, pid: int, received: Sequence[int]) -> None:
        report = socket.socket(fileno=received[0])
        for descriptor in received[1:]:
            os.close(descriptor)
        running = os.pidfd_open(pid)
        socket.send_fds(report, [str(pid).encode()], [running])
        self._running[running] = pid, report
        self._poll.register(running, select.POLLIN)

    def _report_end(self, running: int) -> None:
        self._poll.unregister(running)
        os.close(running)
        pid, report = self._running.pop(running)
        _, status = os.waitpid(pid, 0)
        # Nobody asks after a program that a test has left.
        with report, suppress(BrokenPipeError):
            report.send(str(os.waitstatus_to_exitcode(status)).encode())


def _renumber(received: Sequence[int], numbers: Sequence[int]) -> None:
    """Give open files these numbers, and close all others."""
    copies = [fcntl.fcntl(each, fcntl.F_DUPFD, max(numbers) + 1) for each in received]
    for copy, number in zip(copies, numbers, strict=True):
        os.dup2(copy, number)
    kept = [-1, *sorted(numbers), os.sysconf("SC_OPEN_MAX")]
    for last, following in pairwise(kept):
        # An empty range would be all of them.
        if last + 1 < following:
            os.closerange(last + 1, following)


def _ignore_no_signal() -> None:
    """Undo what this process has from the one that started it: each program brings its own."""
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


def main() -> Program | None:
    """Return in a child with its program, or None when the server is not needed any more."""
    control = socket.socket(fileno=int(sys.argv[1]))
    _ignore_no_signal()
    for name in PRELOADED:
        import_module(name)
    # A collection in a child would copy each page that it looks at.
    gc.collect()
    gc.freeze()
    return Server(control).serve()


if __name__ == "__main__":
    program = main()
    # Here, so that tracebacks and the end of the interpreter are a script's.
    if program is not None:
        program.run()
