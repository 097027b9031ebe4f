"""Requests to the JetStream API."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nats_consumer.exceptions import StreamNotFound

if TYPE_CHECKING:
    from nats_consumer._native import Connection


class Requests:
    """Asks the API behind `prefix`, each time waiting at most `timeout` seconds."""

    def __init__(self, connection: "Connection", *, prefix: str, timeout: float) -> None:
        self._connection = connection
        self._prefix = prefix
        self._timeout = timeout

    async def _request(
        self, subject: str, body: Mapping[str, Any] | None = None, limit: float | None = None
    ) -> dict[str, Any]:
        payload = b"" if body is None else json.dumps(body).encode()
        answer: dict[str, Any] = json.loads(
            await self._connection.api(subject, payload, limit or self._timeout, self._prefix)
        )
        return answer

    async def _request_about(
        self,
        stream: str,
        subject: str,
        body: Mapping[str, Any] | None = None,
        limit: float | None = None,
    ) -> dict[str, Any]:
        """A request whose StreamNotFound names the stream."""
        try:
            return await self._request(subject, body, limit)
        except StreamNotFound as error:
            raise StreamNotFound(
                f"Stream {stream!r} does not exist. Create it with operations.CreateStream in "
                "setup(), and run `manage.py nats_consumer --setup`."
            ) from error

    async def _pages(
        self, subject: str, key: str, offset: int = 0, body: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """Return a whole list that the server sends page by page."""
        found: list[Any] = []
        while True:
            page = await self._request(subject, {**(body or {}), "offset": offset + len(found)})
            found += page[key] or []
            if not page[key] or offset + len(found) >= page["total"]:
                return found
