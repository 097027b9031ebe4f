"""Limits of worker processes, and the decisions about one of them. Nothing here knows processes or
reads a clock, so that tests decide what time it is."""

from dataclasses import dataclass
from enum import StrEnum
from random import Random

# Memory is looked at after the first minute, when the project is loaded, and then this often. It
# has to be above the limit each time: a garbage collection may be about to come.
_MEMORY_AFTER = 60.0
_MEMORY_EVERY = 10.0
_MEMORY_SAMPLES = 3


class Reason(StrEnum):
    """The reason for starting a worker: the values of the label `reason` in metrics."""

    FIRST = "first"
    CRASH = "crash"
    """It ended with another status than 0."""
    KILLED = "killed"
    """A signal ended it."""
    STOPPED = "stopped"
    """It ended with status 0, though nobody asked the supervisor for that."""
    FAILED = "failed"
    """It ended before one of its consumers was ready."""
    HUNG = "hung"
    MAX_MESSAGES = "max_messages"
    MAX_RSS = "max_rss"
    RELOAD = "reload"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of each worker.

    `max_messages` is how many deliveries it settles before it is replaced, with up to
    `max_messages_jitter` more. `max_rss` is in MiB. None means no limit. `start_timeout` is how
    long a new worker may take until its consumers are ready, `hung_after` how long the engine's
    runtime may say nothing, both in seconds."""

    max_messages: int | None = None
    max_messages_jitter: int = 0
    max_rss: int | None = None
    start_timeout: float = 60.0
    hung_after: float = 60.0

    def messages(self, random: Random) -> int | None:
        """The number of deliveries for one worker."""
        if self.max_messages is None:
            return None
        return self.max_messages + random.randint(0, self.max_messages_jitter)


class Memory:
    """Decides whether a worker has used too much memory for long enough. Sizes are bytes."""

    def __init__(self, limit: int, began: float) -> None:
        self.limit = limit
        self.is_too_low = False
        """The limit is below what the worker needs to begin with, so it does not count."""
        self._next = began + _MEMORY_AFTER
        self._is_first = True
        self._above = 0

    def is_due(self, now: float) -> bool:
        """Whether the memory is to be measured now."""
        return now >= self._next and not self.is_too_low

    def exceeds(self, now: float, size: int) -> bool:
        """Take a measurement; return whether the worker is to be replaced."""
        self._next = now + _MEMORY_EVERY
        is_above = size > self.limit
        self.is_too_low = self._is_first and is_above
        self._is_first = False
        self._above = self._above + 1 if is_above else 0
        return self._above >= _MEMORY_SAMPLES and not self.is_too_low


class Heartbeat:
    """Decides whether a worker hangs. Until its first word it loads the project, and may take
    `start_timeout` for that. A process that was stopped, or whose supervisor was, hangs only if it
    says nothing for the whole time afterwards."""

    def __init__(self, hung_after: float, start_timeout: float, now: float) -> None:
        self._hung_after = hung_after
        self._start_timeout = max(hung_after, start_timeout)
        self._excused = now
        self.is_stopped = False

    def look(self, now: float, silence: float | None, *, is_stopped: bool) -> bool:
        """Take a look at the worker, which has said nothing for `silence` seconds; return whether
        it hangs."""
        if is_stopped or self.is_stopped:
            self._excused = now
        self.is_stopped = is_stopped
        since = now - self._excused
        if silence is None:
            return since > self._start_timeout
        return min(since, silence) > self._hung_after

    def excuse(self, now: float) -> None:
        """The supervisor itself stood still until `now`."""
        self._excused = now
