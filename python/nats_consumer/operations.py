"""What setup() returns: operations on streams, each safe to run again."""

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from . import api
from .client import get_nats_client
from .exceptions import ApiError, StreamNotFound
from .names import check_name

if TYPE_CHECKING:
    from .client import Client
    from .jetstream import JetStream

__all__ = [
    "CreateOrUpdateStream",
    "CreateStream",
    "DeleteStream",
    "StreamOperation",
    "UpdateStream",
    "api",
]

logger = logging.getLogger(__name__)

_NAME_IN_USE = 10058


class StreamOperation(ABC):
    """One change to one stream."""

    @abstractmethod
    async def apply(self, jetstream: "JetStream") -> None:
        """Make the change over an open connection."""

    async def execute(self, client: "Client | None" = None) -> None:
        """Make the change, over `client` or a connection of its own. Raises Unreachable,
        SubjectsOverlap and other StreamErrors."""
        if client is not None:
            await self.apply(client.jetstream())
            return
        async with await get_nats_client() as own:
            await self.apply(own.jetstream())


class _Configured(StreamOperation):
    """An operation that is given the fields of api.StreamConfig, times in seconds. Raises
    ValueError for a name that no stream can have, TypeError for a field that does not exist."""

    def __init__(self, **fields: Any) -> None:
        self.config = api.StreamConfig(**fields)
        if self.config.name is None:
            raise ValueError(f"{type(self).__name__} needs the stream's name: name='orders'.")
        self.name = check_name(self.config.name, f"name of {type(self).__name__}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"


class CreateStream(_Configured):
    """Creates the stream. One that exists is left as it is, with a warning if its subjects are
    other ones."""

    async def apply(self, jetstream: "JetStream") -> None:
        """Create the stream unless it exists."""
        try:
            present = await jetstream.stream_info(self.name)
        except StreamNotFound:
            await self._create(jetstream)
        else:
            self._report(present.config)

    async def _create(self, jetstream: "JetStream") -> None:
        try:
            await jetstream.add_stream(self.config)
        except ApiError as error:
            # Another process created it meanwhile.
            if error.err_code != _NAME_IN_USE:
                raise
            self._report((await jetstream.stream_info(self.name)).config)
        else:
            logger.info("Stream %s is created.", self.name)

    def _report(self, present: api.StreamConfig) -> None:
        missing = set(self.config.subjects or ()) - set(present.subjects or ())
        if missing:
            logger.warning(
                "Stream %s exists without the subjects %s, and CreateStream changes nothing. Use "
                "CreateOrUpdateStream to add them.",
                self.name,
                sorted(missing),
            )
        else:
            logger.info("Stream %s exists already; it is left as it is.", self.name)


class UpdateStream(_Configured):
    """Changes the given fields of the stream and keeps the others. A stream that does not exist is
    a warning."""

    async def apply(self, jetstream: "JetStream") -> None:
        """Update the stream if it exists."""
        try:
            await jetstream.update_stream(self.config)
        except StreamNotFound:
            logger.warning("Stream %s does not exist, so it is not updated.", self.name)
        else:
            logger.info("Stream %s is updated.", self.name)


class CreateOrUpdateStream(_Configured):
    """Creates the stream, or changes the given fields of the one that exists."""

    async def apply(self, jetstream: "JetStream") -> None:
        """Update the stream, or create it."""
        try:
            await jetstream.update_stream(self.config)
        except StreamNotFound:
            await jetstream.add_stream(self.config)
            logger.info("Stream %s is created.", self.name)
        else:
            logger.info("Stream %s is updated.", self.name)


class DeleteStream(StreamOperation):
    """Deletes the stream with all its messages. One that does not exist is a warning."""

    def __init__(self, name: str) -> None:
        self.name = check_name(name, "name of DeleteStream")

    async def apply(self, jetstream: "JetStream") -> None:
        """Delete the stream if it exists."""
        try:
            await jetstream.delete_stream(self.name)
        except StreamNotFound:
            logger.warning("Stream %s does not exist, so it is not deleted.", self.name)
        else:
            logger.info("Stream %s is deleted.", self.name)

    def __repr__(self) -> str:
        return f"DeleteStream({self.name!r})"
