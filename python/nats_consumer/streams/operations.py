"""Operations on streams and durables, idempotent, for setup() and for Django migrations. Times are
seconds; enums may be plain strings."""

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from django.db.migrations.operations.base import OperationCategory

from nats_consumer import api
from nats_consumer.client.jetstream import merged
from nats_consumer.connect.option import connection_option
from nats_consumer.exceptions import ApiError, ConsumerGone, StreamMismatch, StreamNotFound
from nats_consumer.names import check_name

from .operation import StreamOperation, check_fields, takes
from .plan import is_so, uncovered

if TYPE_CHECKING:
    from nats_consumer.client.jetstream import JetStreamContext

__all__ = [
    "CreateConsumer",
    "CreateOrUpdateStream",
    "CreateStream",
    "DeleteConsumer",
    "DeleteStream",
    "StreamOperation",
    "UpdateStream",
    "api",
]

logger = logging.getLogger("nats_consumer.server")

_NAME_IN_USE = 10058
# Of a configuration that is wrong, too; the text of the error tells them apart.
_INVALID_CONFIG = 10052
_UNCHANGEABLE = "update can not"


class _Configured(StreamOperation):
    """An operation that is given the fields of api.StreamConfig. Raises ValueError for a name that
    no stream can have, ConfigurationError for a field that does not exist."""

    @takes("using", of=api.StreamConfig)
    def __init__(self, *, using: str | None = None, **fields: Any) -> None:
        self.using = using
        check_fields(fields, of=api.StreamConfig, where=type(self).__name__)
        self.config = api.StreamConfig(**fields)
        if self.config.name is None:
            raise ValueError(f"{type(self).__name__} needs the stream's name: name='orders'.")
        self.name = check_name(self.config.name, f"name of {type(self).__name__}")

    def __repr__(self) -> str:
        return self._call(f"name={self.name!r}")

    @property
    def stream_name(self) -> str:
        """The stream."""
        return self.name

    def _changed(self, present: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: present[name] for name in present if name not in self.config.taken_away}
        return merged(kept, self.config.as_dict())

    async def _update(self, jetstream: "JetStreamContext") -> None:
        try:
            await jetstream.update_stream(self.config)
        except ApiError as error:
            if error.err_code != _INVALID_CONFIG or _UNCHANGEABLE not in error.description:
                raise
            raise StreamMismatch(
                f"Stream {self.name!r} cannot be changed as {self!r} asks: {error.description}. "
                "Keep the stream's value, use another stream name, or delete "
                f"this one with all its messages: {_delete_command(self.name, jetstream)}"
            ) from error


class _Creating(_Configured):
    reversible = True
    category = OperationCategory.ADDITION

    def after(self, present: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The configuration of a stream that is left as it is, or created."""
        return self.config.as_dict() if present is None else present

    async def undo(self, jetstream: "JetStreamContext") -> None:
        """Delete the stream if it was never used: no message, no consumer."""
        try:
            state = (await jetstream.stream_info(self.name)).state
        except StreamNotFound:
            logger.warning("Stream %s does not exist, so it is not deleted.", self.name)
            return
        if state.last_seq or state.consumer_count:
            logger.warning(
                "Stream %s is in use, so it is kept with its messages. To delete it: %s",
                self.name,
                _delete_command(self.name, jetstream),
            )
            return
        await jetstream.delete_stream(self.name)
        logger.info("Stream %s is deleted.", self.name)


class CreateStream(_Creating):
    """Creates the stream. One that exists is left as it is, with a warning if it lacks a subject or
    another given field is another one."""

    def asked(self, present: Mapping[str, Any]) -> Mapping[str, Any]:
        """The configuration that it asks for beside `present`, which it does not change: the given
        fields, and the given subjects that are missing."""
        given = self.config.subjects or ()
        present_subjects = present.get("subjects") or ()
        subjects = [*present_subjects, *uncovered(given, present_subjects)]
        return {**self._changed(present), "subjects": subjects}

    async def apply(self, jetstream: "JetStreamContext") -> None:
        """Create the stream unless it exists."""
        try:
            present = await jetstream.stream_info(self.name)
        except StreamNotFound:
            await self._create(jetstream)
        else:
            self._report(present.config)

    async def _create(self, jetstream: "JetStreamContext") -> None:
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
        missing = uncovered(self.config.subjects or (), present.subjects or ())
        if missing:
            logger.warning(
                "Stream %s exists without the subjects %s. CreateStream does not change it. Use "
                "CreateOrUpdateStream to add them.",
                self.name,
                sorted(missing),
            )
        if different := list(self._differences(present)):
            logger.warning(
                "Stream %s exists with %s. CreateStream does not change it. Use "
                "CreateOrUpdateStream to change it.",
                self.name,
                ", ".join(different),
            )
        if not missing and not different:
            logger.info("Stream %s already exists and is unchanged.", self.name)

    def _differences(self, present: api.StreamConfig) -> Iterator[str]:
        wanted, found = self.config.as_dict(), present.as_dict()
        for name in sorted(wanted.keys() - {"name", "subjects"}):
            if not is_so(wanted[name], found.get(name)):
                yield f"{name}={getattr(present, name)!r} instead of {getattr(self.config, name)!r}"


class UpdateStream(_Configured):
    """Changes the given fields of the stream and keeps the others. A stream that does not exist is
    a warning."""

    def after(self, present: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The configuration with the given fields; None without the stream."""
        return None if present is None else self._changed(present)

    async def apply(self, jetstream: "JetStreamContext") -> None:
        """Update the stream if it exists."""
        try:
            await self._update(jetstream)
        except StreamNotFound:
            logger.warning("Stream %s does not exist, so it is not updated.", self.name)
        else:
            logger.info("Stream %s is updated.", self.name)


class CreateOrUpdateStream(_Creating):
    """Creates the stream, or changes the given fields of the one that exists."""

    def after(self, present: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The configuration with the given fields."""
        return super().after(present) if present is None else self._changed(present)

    async def apply(self, jetstream: "JetStreamContext") -> None:
        """Update the stream, or create it."""
        try:
            await self._update(jetstream)
        except StreamNotFound:
            await jetstream.add_stream(self.config)
            logger.info("Stream %s is created.", self.name)
        else:
            logger.info("Stream %s is updated.", self.name)


class DeleteStream(StreamOperation):
    """Deletes the stream with all its messages. One that does not exist is a warning."""

    category = OperationCategory.REMOVAL

    def __init__(self, stream_name: str, *, using: str | None = None) -> None:
        self.using = using
        self.name = check_name(stream_name, "name of DeleteStream")

    @property
    def stream_name(self) -> str:
        """The stream."""
        return self.name

    def after(self, present: Mapping[str, Any] | None) -> None:
        """No stream."""

    async def apply(self, jetstream: "JetStreamContext") -> None:
        """Delete the stream if it exists."""
        try:
            await jetstream.delete_stream(self.name)
        except StreamNotFound:
            logger.warning("Stream %s does not exist, so it is not deleted.", self.name)
        else:
            logger.info("Stream %s is deleted.", self.name)

    def __repr__(self) -> str:
        return self._call(f"{self.name!r}")


class CreateConsumer(StreamOperation):
    """Creates a durable consumer of `stream`, with the fields of api.ConsumerConfig. One that
    exists is left as it is, with a warning if a given field is another one.

    A consumer class creates its durable and keeps it as its attributes say; this is for
    one that has to be there before, or that another program reads."""

    reversible = True
    category = OperationCategory.ADDITION

    @takes("stream", "using", of=api.ConsumerConfig)
    def __init__(self, *, stream: str, using: str | None = None, **fields: Any) -> None:
        self.using = using
        check_fields(fields, of=api.ConsumerConfig, where="CreateConsumer")
        self.config = api.ConsumerConfig(**fields)
        self.stream = check_name(stream, "stream of CreateConsumer")
        name = self.config.durable_name or self.config.name
        if name is None:
            raise ValueError("CreateConsumer needs the consumer's name: durable_name='billing'.")
        self.name = check_name(name, "durable_name of CreateConsumer")
        self._given = {*fields} - {"name", "durable_name"}

    async def apply(self, jetstream: "JetStreamContext") -> None:
        """Create the consumer unless it exists."""
        try:
            present = await jetstream.consumer_info(self.stream, self.name)
        except ConsumerGone:
            config = self.config.evolve(durable_name=self.name)
            await jetstream.add_consumer(self.stream, config)
            logger.info("Consumer %s of stream %s is created.", self.name, self.stream)
        else:
            self._report(present.config)

    async def undo(self, jetstream: "JetStreamContext") -> None:
        """Delete the consumer if nothing was ever delivered to it."""
        try:
            info = await jetstream.consumer_info(self.stream, self.name)
        except (ConsumerGone, StreamNotFound):
            _report_missing(self.stream, self.name)
            return
        if info.delivered.consumer_seq:
            logger.warning(
                "Consumer %s of stream %s is in use, so it is kept with its position.",
                self.name,
                self.stream,
            )
            return
        await jetstream.delete_consumer(self.stream, self.name)
        logger.info("Consumer %s of stream %s is deleted.", self.name, self.stream)

    def differences(self, present: api.ConsumerConfig) -> list[str]:
        """The given fields that are other ones in `present`."""
        wanted, found = self.config.as_dict(), present.as_dict()
        return sorted(each for each in self._given if wanted.get(each) != found.get(each))

    def _report(self, present: api.ConsumerConfig) -> None:
        if different := self.differences(present):
            logger.warning(
                "Consumer %s of stream %s exists with a different %s. CreateConsumer does not "
                "change it.",
                self.name,
                self.stream,
                ", ".join(different),
            )
        else:
            logger.info("Consumer %s already exists and is unchanged.", self.name)

    def __repr__(self) -> str:
        return self._call(f"stream={self.stream!r}, durable_name={self.name!r}")


class DeleteConsumer(StreamOperation):
    """Deletes the consumer of the stream, with its position. One that does not exist is a
    warning."""

    category = OperationCategory.REMOVAL

    def __init__(self, stream: str, name: str, *, using: str | None = None) -> None:
        self.using = using
        self.stream = check_name(stream, "stream of DeleteConsumer")
        self.name = check_name(name, "name of DeleteConsumer")

    async def apply(self, jetstream: "JetStreamContext") -> None:
        """Delete the consumer if it exists."""
        try:
            await jetstream.delete_consumer(self.stream, self.name)
        except (ConsumerGone, StreamNotFound):
            _report_missing(self.stream, self.name)
        else:
            logger.info("Consumer %s of stream %s is deleted.", self.name, self.stream)

    def __repr__(self) -> str:
        return self._call(f"{self.stream!r}, {self.name!r}")


def _delete_command(stream: str, jetstream: "JetStreamContext") -> str:
    """The command that deletes the stream where it was found."""
    return f"manage.py nats_delete_stream {stream}{connection_option(jetstream.using)}"


def _report_missing(stream: str, name: str) -> None:
    logger.warning("Consumer %s of stream %s does not exist, so it is not deleted.", name, stream)
