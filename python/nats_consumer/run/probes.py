"""Probes and metrics over HTTP, beside the consumers of a worker."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from nats_consumer import _native
from nats_consumer.declare.options import Overrides, consumer_options

from .keep_running import Runnable


@dataclass(frozen=True, kw_only=True)
class Observers:
    """The observers of a process. `http` is the address of probes and metrics, as "host:port"; None
    serves none. A consumer that was ready counts as ready for `ready_grace` seconds while it
    reconnects. `page` is the memory that a supervisor reads."""

    http: str | None = None
    ready_grace: float = 10.0
    page: int | None = None

    def __bool__(self) -> bool:
        return self.http is not None or self.page is not None


@contextmanager
def observed(
    observers: Observers, consumers: Sequence[type[Runnable]], overrides: Overrides
) -> Iterator[None]:
    """Let the observers see this process. The consumers are known from now on."""
    if observers.page is not None:
        _native.count_into(observers.page)
    for consumer in consumers:
        _native.declare(consumer_options(consumer, overrides))
    if observers.http is None:
        yield
        return
    probes = _native.serve_probes(observers.http, observers.ready_grace)
    try:
        yield
    finally:
        probes.end()
