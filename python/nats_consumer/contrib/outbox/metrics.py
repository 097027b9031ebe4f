"""The outbox among the metrics of a worker."""

from time import monotonic

from .lag import lag

# Prometheus commonly asks every 15 or 30 seconds, and to count the rows costs a query.
_MEASURE_EVERY_SECONDS = 10.0


class Metrics:
    """The metrics of the outbox of the database `using`. Use it in one thread."""

    def __init__(self, using: str) -> None:
        from nats_consumer import _native

        self._using = using
        self._native = _native.OutboxMetrics(using)
        self._published = 0
        self._measured = float("-inf")

    def update(self, published: int, *, holds: bool) -> None:
        """`published` rows have been stored in all. While the relay holds the lease, count the rows
        that wait, if somebody reads the metrics. Raises what the database raises."""
        self._native.count_published(published - self._published)
        self._published = published
        if not holds:
            self._measured = float("-inf")
            self._native.forget()
        elif self._is_due():
            self._measured = monotonic()
            waiting = lag(self._using)
            self._native.set(
                waiting.rows, waiting.oldest_seconds if waiting.rows else None, waiting.stuck
            )

    def _is_due(self) -> bool:
        is_due = monotonic() - self._measured >= _MEASURE_EVERY_SECONDS
        return is_due and self._native.is_read()
