"""--reload: the command runs in a child process, which restarts when a Python file of the project
changes."""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from django.apps import apps
from django.conf import settings
from django.utils.autoreload import get_child_arguments

from nats_consumer.exceptions import ConfigurationError

from .parent import Child

logger = logging.getLogger("nats_consumer.worker")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_POLL_MILLISECONDS = 500
# Changes that come closer together than this restart once.
_TOGETHER_MILLISECONDS = 300
_INSTALLED = ("site-packages", "dist-packages")

Watch = Callable[..., Iterator[set[tuple[Any, str]]]]


def run() -> int:
    """Run this process's command line in a child, and again after each change, until SIGTERM or
    SIGINT. Returns the child's exit code. Raises ConfigurationError without watchfiles."""
    try:
        from watchfiles import watch
    except ImportError as error:
        raise ConfigurationError(
            "--reload needs watchfiles. Install it: pip install 'django-nats-consumer[reload]'"
        ) from error
    if not settings.DEBUG:
        logger.warning("DEBUG is False, but --reload is meant for development.")
    return _Reloader(watch, source_folders()).run()


class _Reloader:
    def __init__(self, watch: Watch, folders: list[Path]) -> None:
        self._watch = watch
        self._folders = folders
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        # The child keeps one end, and sees by it when this process is gone.
        self._alive, self._held = os.pipe()
        self._is_draining = False
        self._is_reported = False

    def run(self) -> int:
        with _signals_go_to(self._on_signal):
            logger.info("Watching the Python files in %s.", ", ".join(map(str, self._folders)))
            self._child = child = self._start()
            for changes in self._changes():
                changed = sorted(path for _, path in changes if is_source(path, self._folders))
                if changed:
                    self._child = child = self._restart(child, changed)
                elif self._has_ended(child):
                    break
            return _exit_code(child.wait())

    def _changes(self) -> Iterator[set[tuple[Any, str]]]:
        # Filtered here and not by watchfiles: it would be silent while other files change.
        return self._watch(
            *self._folders,
            watch_filter=None,
            stop_event=self._stopping,
            debounce=_TOGETHER_MILLISECONDS,
            rust_timeout=_POLL_MILLISECONDS,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )

    def _start(self) -> subprocess.Popen[bytes]:
        self._is_draining = self._is_reported = False
        child = Child(self._alive)
        return subprocess.Popen(
            get_child_arguments(),
            env={**os.environ, **child.environment},
            pass_fds=child.inherited,
        )

    def _restart(
        self, child: subprocess.Popen[bytes], changed: list[str]
    ) -> subprocess.Popen[bytes]:
        logger.info("%s changed: restarting the consumers.", changed[0])
        self._is_draining = True
        child.terminate()
        child.wait()
        return child if self._stopping.is_set() else self._start()

    def _has_ended(self, child: subprocess.Popen[bytes]) -> bool:
        """Whether the child ended as it should. One that failed may do better after a change."""
        code = child.poll()
        if code and not self._is_reported:
            self._is_reported = True
            logger.error("The consumers ended with status %d; waiting for a change.", code)
        return code == 0

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        is_first = not self._stopping.is_set()
        self._stopping.set()
        has_it_already = self._is_draining or (number == signal.SIGINT and _is_typed())
        if self._child is not None and not (is_first and has_it_already):
            self._child.send_signal(number)


def source_folders() -> list[Path]:
    """The project (BASE_DIR, or else the working directory), and the apps that lie outside of it
    but are not installed packages."""
    project = Path(getattr(settings, "BASE_DIR", "") or Path.cwd())
    own = [Path(app.path) for app in apps.get_app_configs() if not _is_installed(Path(app.path))]
    folders = {folder.resolve() for folder in (project, *own)}
    return sorted(folder for folder in folders if not folders.intersection(folder.parents))


def is_source(path: str, folders: list[Path]) -> bool:
    """Whether the file in one of the `folders` is Python of the project: not in a virtual
    environment, a hidden folder or an installed package."""
    file = Path(path)
    root = next((folder for folder in folders if folder in file.parents), None)
    if file.suffix != ".py" or root is None:
        return False
    within = file.relative_to(root).parent
    if _is_installed(within) or any(part.startswith(".") for part in within.parts):
        return False
    parents = (root / parent for parent in (within, *within.parents))
    return not any((parent / "pyvenv.cfg").exists() for parent in parents)


def _is_installed(folder: Path) -> bool:
    return any(part in _INSTALLED for part in folder.parts)


def _is_typed() -> bool:
    """Whether Ctrl-C on this process's terminal reaches the child too."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _exit_code(code: int) -> int:
    # As a shell says it of a process that a signal ended.
    return code if code >= 0 else 128 - code


@contextmanager
def _signals_go_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
