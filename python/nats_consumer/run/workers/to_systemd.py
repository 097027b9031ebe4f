"""Reports to systemd about a fleet of workers."""

from nats_consumer.run.notify import Manager

from .fleet import Fleet

# systemd waits for 90 s by default. By then it is told that what has begun is what there is.
_PATIENCE = 60.0


class ToSystemd:
    """Tells the process manager when all workers are ready, are being replaced, or end. Call `turn`
    after each turn of the fleet."""

    def __init__(self, manager: Manager, fleet: Fleet) -> None:
        self._manager = manager
        self._fleet = fleet
        self._began: float | None = None
        self._has_told_ready = False
        self._is_rolling = False
        self._is_draining = False
        self._last_status = ""
        self._next_sign = 0.0

    def turn(self, now: float) -> None:
        """Tell what has changed, and that the supervisor goes on."""
        if self._began is None:
            self._began = now
        self._tell_readiness(now - self._began)
        self._tell_changes()
        if (interval := self._manager.watchdog) is not None and now >= self._next_sign:
            self._next_sign = now + interval
            self._manager.alive()

    def _tell_readiness(self, since: float) -> None:
        fleet, status = self._fleet, self._status()
        is_patient = since < _PATIENCE
        if not self._has_told_ready and (fleet.is_ready or (fleet.has_begun and not is_patient)):
            self._has_told_ready = True
            self._manager.ready(status)
        elif self._has_told_ready and status != self._last_status:
            self._manager.status(status)
        self._last_status = status

    def _tell_changes(self) -> None:
        fleet = self._fleet
        if fleet.is_draining and not self._is_draining:
            self._is_draining = True
            self._manager.stopping()
        elif fleet.is_rolling != self._is_rolling and not fleet.is_draining:
            self._is_rolling = fleet.is_rolling
            if self._is_rolling:
                self._manager.reloading()
            else:
                self._manager.ready(self._status())

    def _status(self) -> str:
        return f"{self._fleet.filled} of {self._fleet.wanted} workers are ready."
