"""Servers beside NATS that some contestants need: started when the first of them is in."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from harness import meter
from harness.postgres import Postgres
from harness.redis_server import Redis


class Services:
    """A PostgreSQL and a Redis, each if it is asked for; a context manager."""

    def __init__(self) -> None:
        self._postgres: Postgres | None = None
        self._redis: Redis | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for each in (self._postgres, self._redis):
            if each is not None:
                each.stop()

    def start(self, name: str) -> None:
        """Start "postgresql" or "redis", if it does not run; "" is nothing. Raises
        FileNotFoundError where the machine has none."""
        if name == "postgresql" and self._postgres is None:
            self._postgres = Postgres()
        if name == "redis" and self._redis is None:
            self._redis = Redis()

    @property
    def redis(self) -> Redis:
        """The Redis that was started."""
        assert self._redis is not None
        return self._redis

    @property
    def database(self) -> dict[str, Any]:
        """Django's settings of the PostgreSQL that was started."""
        assert self._postgres is not None
        return self._postgres.settings()

    def pids(self) -> Sequence[int]:
        """The processes of what was started."""
        started = [each.pid for each in (self._postgres, self._redis) if each is not None]
        return [pid for each in started for pid in meter.family(each)]

    def versions(self) -> dict[str, str]:
        """Return the versions of the services that were started."""
        named = {"postgresql": self._postgres, "redis-server": self._redis}
        return {name: each.version for name, each in named.items() if each is not None}
