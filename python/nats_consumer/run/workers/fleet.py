"""Decisions about all workers: when to start one, to replace one, to end them. Processes and the
clock are given, so that the tests have neither."""

import logging
import math
import signal
from collections import deque
from collections.abc import Callable
from random import Random
from typing import NamedTuple, Protocol

from nats_consumer.run.pauses import Pauses

from .limits import Heartbeat, Limits, Memory, Reason

logger = logging.getLogger("nats_consumer.worker")

# Between the first signal and another one that ends the workers at once, in seconds.
_SAME_SECONDS = 1.0
# How long workers may take beyond shutdown_timeout: their engine ends them after five seconds.
_ENDING_SECONDS = 6.0
# How long a worker that is to end at once, or to show what it does, may take for it.
_LAST_SECONDS = 1.0
# Between two turns, in seconds: while something changes, and otherwise.
_SOON = 0.05
_LATER = 1.0
# A supervisor that did not turn for longer than this stood still, and maybe its workers too.
_LONGEST_TURN = 5.0
_MIB = 1024 * 1024


class Look(NamedTuple):
    """The memory shared with a worker, as it was at a look: whether one of its consumers is ready,
    which are not, the number of deliveries it settled, and its silence in seconds."""

    has_begun: bool
    unready: frozenset[str]
    settled: int
    silence: float | None

    @property
    def is_ready(self) -> bool:
        """Whether all of its consumers are ready."""
        return self.has_begun and not self.unready


class Process(Protocol):
    """A worker process."""

    pid: int

    def ended(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""

    def look(self) -> Look:
        """Look at what it tells."""

    def rss(self) -> int:
        """Return its resident memory in bytes."""

    def is_stopped(self) -> bool:
        """Whether SIGSTOP or a debugger has stopped it."""

    def signal(self, number: int) -> None:
        """Send a signal."""

    def note_leaving(self) -> None:
        """Take note that another worker has its place."""

    def release(self) -> None:
        """Keep its counters; it has ended."""


Start = Callable[[int, Reason, bool], Process]
"""Starts a process for this slot; the last argument tells whether it runs setup(). Raises OSError
where the system has no process or no memory left."""


class Worker:
    """A process with what was decided about it."""

    def __init__(self, process: Process, limits: Limits, now: float, random: Random) -> None:
        self.process = process
        self.began = now
        self.last = Look(has_begun=False, unready=frozenset(), settled=0, silence=None)
        self.was_ready = False
        self.rss = 0
        self.is_ending = False
        self.is_hung = False
        self._kill_at = math.inf
        self._most_messages = limits.messages(random)
        self._not_before = now
        self._heartbeat = Heartbeat(limits.hung_after, limits.start_timeout, now)
        self._memory = None if limits.max_rss is None else Memory(limits.max_rss * _MIB, now)

    def look(self, now: float) -> Reason | None:
        """Look at the process; return why it has to be replaced, if it has."""
        self.last = self.process.look()
        self.was_ready = self.was_ready or self.last.has_begun
        if self.is_ending:
            return None
        if self._hangs(now):
            return Reason.HUNG
        if self._uses_too_much(now):
            return Reason.MAX_RSS
        if self._has_settled_enough() and now >= self._not_before:
            return Reason.MAX_MESSAGES
        return None

    def postpone(self, until: float) -> None:
        """It stays although it has settled enough messages, because no other could begin."""
        self._not_before = until

    def excuse(self, now: float) -> None:
        """The supervisor itself stood still until `now`."""
        self._heartbeat.excuse(now)

    def kill_by(self, moment: float) -> None:
        """It is killed at this moment, unless it ends or was to be killed before."""
        self._kill_at = min(self._kill_at, moment)

    def kill_if_due(self, now: float) -> None:
        """Kill it if it had time enough."""
        if now >= self._kill_at:
            self.process.signal(signal.SIGKILL)

    def _has_settled_enough(self) -> bool:
        return self._most_messages is not None and self.last.settled >= self._most_messages

    def _hangs(self, now: float) -> bool:
        was_stopped, is_stopped = self._heartbeat.is_stopped, self.process.is_stopped()
        hangs = self._heartbeat.look(now, self.last.silence, is_stopped=is_stopped)
        if is_stopped and not was_stopped:
            logger.warning(
                "The worker %d is stopped by a signal. It is left alone until SIGCONT.",
                self.process.pid,
            )
        return hangs and not self.is_hung

    def _uses_too_much(self, now: float) -> bool:
        memory = self._memory
        if memory is None or not memory.is_due(now):
            return False
        self.rss = self.process.rss()
        exceeds = memory.exceeds(now, self.rss)
        if memory.is_too_low:
            logger.error(
                "The worker %d uses %d MiB after its first minute, which is more than --max-rss. "
                "The limit is ignored for it. Set a higher one.",
                self.process.pid,
                self.rss // _MIB,
            )
        return exceeds


class Slot:
    """A place for one worker."""

    def __init__(self, number: int, random: Random) -> None:
        self.number = number
        self.pauses = Pauses(random)
        self.worker: Worker | None = None
        self.due: float | None = 0.0
        self.reason = Reason.FIRST


class Replacement:
    """A slot whose worker is being replaced."""

    def __init__(self, slot: Slot, old: Worker, reason: Reason) -> None:
        self.slot = slot
        self.old = old
        self.reason = reason
        self.fresh: Worker | None = None


class Fleet:
    """All workers. Call `turn` again and again: at once after a signal or the end of a process."""

    def __init__(
        self,
        size: int,
        *,
        limits: Limits,
        shutdown_timeout: float,
        start: Start,
        clock: Callable[[], float],
        random: Random,
        runs_setup: bool = False,
    ) -> None:
        self._limits = limits
        self._shutdown_timeout = shutdown_timeout
        self._start = start
        self._clock = clock
        self._random = random
        self._runs_setup = runs_setup
        self._is_setup_due = runs_setup
        self._next_number = 0
        self._slots: list[Slot] = []
        self._leaving: list[Worker] = []
        self._queue: deque[tuple[Slot, Reason]] = deque()
        self._replacement: Replacement | None = None
        self._to_show: deque[Worker] = deque()
        self._has_begun = False
        self._is_rolling = False
        self._drain: _Drain | None = None
        self._last_turn = clock()
        self.failure: int | None = None
        """The exit status if not one worker could begin."""
        for _ in range(size):
            self._add_slot()

    # Questions

    @property
    def wanted(self) -> int:
        """How many workers there should be."""
        return len(self._slots)

    @property
    def filled(self) -> int:
        """How many slots have a worker that is ready, or is being replaced."""
        return sum(self._is_filled(slot) for slot in self._slots)

    @property
    def is_ready(self) -> bool:
        """Whether all slots are filled."""
        return self.filled == self.wanted

    @property
    def has_begun(self) -> bool:
        """Whether a consumer was ready in any worker so far."""
        return self._has_begun

    @property
    def is_rolling(self) -> bool:
        """Whether all workers are being replaced."""
        return self._is_rolling

    @property
    def is_over(self) -> bool:
        """Whether it drained, or could not begin, and no worker is left."""
        return (self._drain is not None or self.failure is not None) and not self._alive()

    @property
    def is_draining(self) -> bool:
        """Whether all workers are to end."""
        return self._drain is not None

    @property
    def status(self) -> int:
        """The exit status, once it is over."""
        if self.failure is not None:
            return self.failure
        return self._drain.status if self._drain else 0

    def pause(self) -> float:
        """Return how long the next turn may wait, in seconds."""
        now = self._clock()
        is_changing = self._drain or self._replacement or self._leaving or self._is_starting(now)
        if is_changing or self._to_show:
            return _SOON
        due = [slot.due - now for slot in self._slots if slot.due is not None]
        return max(_SOON, min([_LATER, *due]))

    def describe(self) -> list[str]:
        """A line for each worker."""
        now = self._clock()
        return [
            f"slot {slot.number}: "
            + (self._described(slot.worker, now) if slot.worker else f"empty, {slot.reason}")
            for slot in self._slots
        ] + [f"ending: {self._described(worker, now)}" for worker in self._leaving]

    # Requests

    def replace_all(self) -> None:
        """Replace each worker by a new one, one after the other, the new one first."""
        if self._drain or self.failure is not None:
            return
        logger.info("All workers are replaced, one after the other.")
        self._is_rolling = True
        self._is_setup_due = self._runs_setup
        self._queue = deque((slot, Reason.RELOAD) for slot in self._slots)
        for slot in self._slots:
            if slot.worker is None and self._has_begun:
                slot.due = self._clock()  # what failed so far may begin with the new code

    def add(self) -> None:
        """Add a slot."""
        if self._drain is None:
            self._add_slot()
            logger.info("One worker more: %d.", self.wanted)

    def remove(self) -> None:
        """Drain the worker of the last slot; the first one stays."""
        if self._drain or self.wanted == 1:
            return
        slot = self._slots.pop()
        self._queue = deque(each for each in self._queue if each[0] is not slot)
        logger.info("One worker less: %d.", self.wanted)
        if self._replacement and self._replacement.slot is slot:
            self._end_replacement(self._replacement)
        if slot.worker is not None:
            self._let_go(slot.worker)

    def drain(self, number: int) -> None:
        """Drain all workers; a second later or more, end them at once."""
        now = self._clock()
        if self._drain is None:
            self._drain = _Drain(began=now)
            self._queue.clear()
            for worker in self._alive():
                self._drain_worker(worker)
        elif now - self._drain.began >= _SAME_SECONDS:
            self._drain.status = 128 + number
            for worker in self._alive():
                worker.kill_by(now + _LAST_SECONDS)
                worker.process.signal(signal.SIGTERM)

    def show(self) -> None:
        """Let each worker show what it does, one in each turn: they share a stderr, and stacks do
        not say whose they are. One that is still loading the project cannot yet."""
        self._to_show = deque(each for each in self._alive() if each.last.silence is not None)

    # Turns

    def turn(self) -> None:
        """Look at everything once, and do what is due."""
        now = self._clock()
        self._excuse(now)
        self._leaving = [worker for worker in self._leaving if not self._has_ended(worker, now)]
        for slot in self._slots:
            self._turn_slot(slot, now)
        self._turn_replacement(now)
        self._show_next()

    def _show_next(self) -> None:
        if not self._to_show:
            return
        worker = self._to_show.popleft()
        logger.info("The worker %d writes its stacks to stderr.", worker.process.pid)
        worker.process.signal(signal.SIGUSR1)

    def _excuse(self, now: float) -> None:
        if now - self._last_turn > _LONGEST_TURN:
            for worker in self._alive():
                worker.excuse(now)
        self._last_turn = now

    def _turn_slot(self, slot: Slot, now: float) -> None:
        worker = slot.worker
        if worker is None:
            self._start_if_due(slot, now)
            return
        status = worker.process.ended()
        if status is not None:
            self._after_end(slot, worker, status, now)
            return
        finding = worker.look(now)
        self._has_begun = self._has_begun or worker.last.has_begun
        if finding is Reason.HUNG:
            self._show_and_kill(worker, now)
        elif finding is not None:
            self._enqueue(slot, finding)
        worker.kill_if_due(now)

    def _start_if_due(self, slot: Slot, now: float) -> None:
        # The first one alone, until it consumes: it sets the streams up, and if it cannot begin,
        # the others could not either.
        is_first = slot is self._slots[0]
        if self._drain or self.failure is not None or not (self._has_begun or is_first):
            return
        if slot.due is not None and now >= slot.due:
            self._fill(slot, slot.reason, now)

    def _fill(self, slot: Slot, reason: Reason, now: float) -> None:
        """Start the worker of an empty slot; later, if the system has none now."""
        slot.due = None
        try:
            slot.worker = self._begin(slot, reason, now)
        except OSError as error:
            if not self._has_begun:
                self.failure = 1
                logger.error("No worker could be started: %s.", error)
                return
            pause = self._start_later(slot, now)
            logger.error("A worker could not be started: %s. Trying again in %.1f s.", error, pause)

    def _begin(self, slot: Slot, reason: Reason, now: float) -> Worker:
        process = self._start(slot.number, reason, self._is_setup_due)
        self._is_setup_due = False
        return Worker(process, self._limits, now, self._random)

    def _start_later(self, slot: Slot, now: float) -> float:
        """Start the worker of a slot, which could not begin, after a pause; return the pause."""
        pause = slot.pauses.after(0)
        slot.reason, slot.due = Reason.FAILED, now + pause
        return pause

    def _after_end(self, slot: Slot, worker: Worker, status: int, now: float) -> None:
        worker.look(now)
        worker.process.release()
        slot.worker = None
        if worker.is_ending:
            _report_drained(worker, status)
            return
        if self._replacement is not None and self._replacement.slot is slot:
            ending = _ending_of(worker, status)
            logger.error("The worker %d %s while it was replaced.", worker.process.pid, ending)
            return
        if not self._has_begun:
            self.failure = status if status > 0 else 1
            return
        slot.reason = _reason_of(worker, status)
        pause = slot.pauses.after(now - worker.began)
        slot.due = now + pause
        logger.error(
            "The worker %d %s. Another one starts in %.1f s.",
            worker.process.pid,
            _ending_of(worker, status),
            pause,
        )

    def _show_and_kill(self, worker: Worker, now: float) -> None:
        worker.is_hung = True
        worker.kill_by(now + _LAST_SECONDS)
        logger.error(
            "The engine of worker %d has not reported for %.0f s. The worker writes its stacks to "
            "stderr, then it is killed.",
            worker.process.pid,
            worker.last.silence or now - worker.began,
        )
        worker.process.signal(signal.SIGUSR1)

    def _enqueue(self, slot: Slot, reason: Reason) -> None:
        is_known = any(each is slot for each, _ in self._queue)
        is_now = self._replacement is not None and self._replacement.slot is slot
        if not (self._drain or is_known or is_now):
            self._queue.append((slot, reason))

    # Replacing

    def _turn_replacement(self, now: float) -> None:
        if self._drain is not None:
            self._collect_fresh(now)
        elif self._replacement is None:
            self._replace_next(now)
        elif self._replacement.reason is Reason.MAX_RSS:
            self._replace_old_first(self._replacement, now)
        else:
            self._replace_new_first(self._replacement, now)

    def _replace_next(self, now: float) -> None:
        while self._queue and not self._leaving:
            slot, reason = self._queue.popleft()
            # One that ended meanwhile is started again anyway.
            if slot.worker is not None and not slot.worker.is_ending:
                self._begin_replacement(Replacement(slot, slot.worker, reason), now)
                return
        if self._is_rolling and not self._queue and not self._leaving:
            self._is_rolling = False
            logger.info("All workers are replaced.")

    def _begin_replacement(self, replacement: Replacement, now: float) -> None:
        self._replacement = replacement
        old, reason = replacement.old, replacement.reason
        logger.info("The worker %d is replaced (%s).", old.process.pid, reason)
        if reason is Reason.MAX_RSS:
            self._drain_worker(old)  # together they might use more than there is
            return
        try:
            replacement.fresh = self._begin(replacement.slot, reason, now)
        except OSError as error:
            self._give_up(replacement, f"it could not be started ({error})", now)

    def _replace_old_first(self, replacement: Replacement, now: float) -> None:
        slot = replacement.slot
        if slot.worker is replacement.old:
            return  # it drains
        self._replacement = None
        self._fill(slot, replacement.reason, now)

    def _replace_new_first(self, replacement: Replacement, now: float) -> None:
        fresh, old, slot = replacement.fresh, replacement.old, replacement.slot
        assert fresh is not None
        status = fresh.process.ended()
        if status is not None:
            fresh.process.release()
            replacement.fresh = None
            ending = _ending_of(fresh, status)
            self._give_up(replacement, f"it {ending} before its consumers were ready", now)
            return
        fresh.look(now)
        if fresh.last.has_begun and fresh.last.unready <= old.last.unready:
            self._replacement = None
            has_old = slot.worker is old
            slot.worker = fresh
            if has_old:
                self._let_go(old)
        elif now - fresh.began > self._limits.start_timeout:
            missing = ", ".join(sorted(fresh.last.unready)) or "its consumers"
            why = f"{missing} not ready within {self._limits.start_timeout:g} s"
            self._give_up(replacement, why, now)

    def _give_up(self, replacement: Replacement, why: str, now: float) -> None:
        slot, old = replacement.slot, replacement.old
        self._end_replacement(replacement)
        if slot.worker is None:
            # The old one ended meanwhile.
            self._start_later(slot, now)
        consequence = f"The worker {old.process.pid} stays."
        if replacement.reason is Reason.RELOAD:
            self._is_rolling = False
            self._queue.clear()
            consequence = "No other worker is replaced."
        else:
            old.postpone(now + slot.pauses.after(0))
        logger.error("A new worker could not take its place: %s. %s", why, consequence)

    def _end_replacement(self, replacement: Replacement) -> None:
        self._replacement = None
        if replacement.fresh is not None:
            self._let_go(replacement.fresh)

    def _collect_fresh(self, now: float) -> None:
        replacement = self._replacement
        if replacement and (fresh := replacement.fresh) and self._has_ended(fresh, now):
            self._replacement = None

    # Ending

    def _let_go(self, worker: Worker) -> None:
        """Drain a worker that has no slot any more."""
        worker.process.note_leaving()
        self._drain_worker(worker)
        self._leaving.append(worker)

    def _drain_worker(self, worker: Worker) -> None:
        if worker.is_ending:
            return  # a second signal would end its handlers at once
        worker.is_ending = True
        worker.kill_by(self._clock() + self._shutdown_timeout + _ENDING_SECONDS)
        # Not SIGINT, which one that still loads the project answers with a traceback.
        worker.process.signal(signal.SIGTERM)

    def _has_ended(self, worker: Worker, now: float) -> bool:
        status = worker.process.ended()
        if status is None:
            worker.look(now)
            worker.kill_if_due(now)
            return False
        worker.process.release()
        _report_drained(worker, status)
        return True

    def _alive(self) -> list[Worker]:
        workers = [slot.worker for slot in self._slots] + [*self._leaving]
        if self._replacement is not None:
            workers.append(self._replacement.fresh)
        return [worker for worker in workers if worker is not None]

    def _is_starting(self, now: float) -> bool:
        latest = now - self._limits.start_timeout
        return any(not worker.was_ready and worker.began > latest for worker in self._alive())

    def _add_slot(self) -> None:
        self._slots.append(Slot(self._next_number, self._random))
        self._next_number += 1

    def _is_filled(self, slot: Slot) -> bool:
        is_replaced = self._replacement is not None and self._replacement.slot is slot
        return is_replaced or (slot.worker is not None and slot.worker.last.is_ready)

    def _described(self, worker: Worker, now: float) -> str:
        unready = ", ".join(sorted(worker.last.unready))
        state = "ready" if worker.last.is_ready else f"not ready ({unready or 'starting'})"
        return f"worker {worker.process.pid}, {state}, for {now - worker.began:.0f} s"


class _Drain:
    def __init__(self, *, began: float) -> None:
        self.began = began
        self.status = 0


def _reason_of(worker: Worker, status: int) -> Reason:
    if worker.is_hung:
        return Reason.HUNG
    if status < 0:
        return Reason.KILLED
    if not worker.was_ready:
        return Reason.FAILED
    return Reason.CRASH if status else Reason.STOPPED


def _report_drained(worker: Worker, status: int) -> None:
    # One that still loads the project has no handlers that could finish.
    if status and worker.was_ready:
        logger.warning(
            "The worker %d %s while it drained. Messages whose handlers still ran are delivered "
            "again.",
            worker.process.pid,
            _ending_of(worker, status),
        )


def _ending_of(worker: Worker, status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    memory = f" ({worker.rss // _MIB} MiB of memory)" if worker.rss else ""
    return f"was ended by {name}{memory}"
