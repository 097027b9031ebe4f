"""Streams and publishing over an open connection."""
# ruff: noqa: ASYNC109 - the parameters are those of nats-py

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .api import ConsumerConfig, ConsumerInfo, PubAck, StreamConfig, StreamInfo
from .exceptions import StreamNotFound, SubjectsOverlap

if TYPE_CHECKING:
    from ._native import Connection

_EXPECTED_STREAM = "Nats-Expected-Stream"


class JetStream:
    """What `client.jetstream()` returns. `timeout` is in seconds, for each request."""

    def __init__(self, connection: "Connection", *, timeout: float = 5.0) -> None:
        self._connection = connection
        self._timeout = timeout

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float | None = None,
        stream: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> PubAck:
        """Store a message and wait until the server confirms it. With a `Nats-Msg-Id` header, a
        repeat is stored once. `stream` is the one you expect it in. Raises NoStreamResponse,
        PublishTimeout or PayloadTooLarge."""
        if stream:
            headers = {**(headers or {}), _EXPECTED_STREAM: stream}
        name, sequence, duplicate, domain = await self._connection.publish_stream(
            subject, payload, timeout or self._timeout, headers
        )
        return PubAck(stream=name, seq=sequence, domain=domain, duplicate=duplicate or None)

    async def stream_info(self, name: str) -> StreamInfo:
        """The stream's configuration and state. Raises StreamNotFound."""
        return StreamInfo.from_response(await self._stream_request("INFO", name))

    async def add_stream(self, config: StreamConfig | None = None, **params: Any) -> StreamInfo:
        """Create the stream of `config` and `params`. Raises SubjectsOverlap, naming the stream
        that has the subjects, and ApiError."""
        wire = _config(config, params).as_dict()
        return StreamInfo.from_response(await self._configure("CREATE", wire))

    async def update_stream(self, config: StreamConfig | None = None, **params: Any) -> StreamInfo:
        """Change the fields that are given and keep the others, but for a duplicate_window that is
        longer than a max_age that is given. Raises StreamNotFound and, like add_stream,
        SubjectsOverlap and ApiError."""
        wire = _config(config, params).as_dict()
        present = (await self._stream_request("INFO", wire["name"]))["config"]
        return StreamInfo.from_response(await self._configure("UPDATE", merged(present, wire)))

    async def delete_stream(self, name: str) -> bool:
        """Delete the stream with all its messages. Raises StreamNotFound."""
        return bool((await self._stream_request("DELETE", name))["success"])

    async def purge_stream(self, name: str) -> bool:
        """Delete all messages of the stream. Raises StreamNotFound."""
        return bool((await self._stream_request("PURGE", name))["success"])

    async def stream_names(self, subject: str | None = None) -> list[str]:
        """The streams that have `subject`, or all."""
        names: list[str] = []
        while True:
            request = {"offset": len(names), **({"subject": subject} if subject else {})}
            page = await self._request("STREAM.NAMES", request)
            names += page["streams"] or []
            if not page["streams"] or len(names) >= page["total"]:
                return names

    async def add_consumer(
        self, stream: str, config: ConsumerConfig | None = None, **params: Any
    ) -> ConsumerInfo:
        """Create the consumer of `config` and `params`, or change the one of its name. Raises
        StreamNotFound and ApiError."""
        merged = (config or ConsumerConfig()).evolve(**params)
        name = merged.durable_name or merged.name
        if not name:
            raise ValueError("A consumer needs a durable_name or a name.")
        body = {"stream_name": stream, "config": merged.as_dict()}
        return ConsumerInfo.from_response(
            await self._stream_request("CREATE", stream, body, durable=name)
        )

    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo:
        """How far the durable `consumer` is. Raises StreamNotFound and ConsumerGone."""
        return ConsumerInfo.from_response(
            await self._stream_request("INFO", stream, durable=consumer)
        )

    async def delete_consumer(self, stream: str, consumer: str) -> bool:
        """Delete the durable `consumer` and its position. Raises StreamNotFound, ConsumerGone."""
        response = await self._stream_request("DELETE", stream, durable=consumer)
        return bool(response["success"])

    async def _configure(self, verb: str, wire: dict[str, Any]) -> dict[str, Any]:
        name = wire["name"]
        try:
            return await self._stream_request(verb, name, wire)
        except SubjectsOverlap as error:
            raise await self._overlap(name, wire.get("subjects") or [name]) from error

    async def _stream_request(
        self,
        verb: str,
        stream: str,
        body: dict[str, Any] | None = None,
        *,
        durable: str | None = None,
    ) -> dict[str, Any]:
        subject = f"CONSUMER.{verb}.{stream}.{durable}" if durable else f"STREAM.{verb}.{stream}"
        try:
            return await self._request(subject, body)
        except StreamNotFound as error:
            raise StreamNotFound(
                f"Stream {stream!r} does not exist. Create it with operations.CreateStream in "
                "setup(), and run `manage.py nats_consumer --setup`."
            ) from error

    async def _request(self, subject: str, body: dict[str, Any] | None) -> dict[str, Any]:
        payload = b"" if body is None else json.dumps(body).encode()
        answer: dict[str, Any] = json.loads(
            await self._connection.api(subject, payload, self._timeout)
        )
        return answer

    async def _overlap(self, stream: str, subjects: list[str]) -> SubjectsOverlap:
        owners = [
            f"{subject!r} belongs to stream {owner!r}"
            for subject in subjects
            for owner in await self.stream_names(subject)
            if owner != stream
        ]
        # The server also refuses subjects that overlap one another within the one stream.
        clash = "; ".join(owners) or f"they overlap one another: {subjects}"
        return SubjectsOverlap(
            f"Stream {stream!r} cannot have these subjects: {clash}. Give each subject to one "
            "stream only."
        )


def merged(present: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a stream after the `changes`; all as it goes over the wire."""
    after = {**present, **changes}
    age, window = after.get("max_age") or 0, after.get("duplicate_window") or 0
    # The server refuses a window that is longer than the age.
    if "duplicate_window" not in changes and 0 < age < window:
        after["duplicate_window"] = age
    return after


def _config(config: StreamConfig | None, params: Mapping[str, Any]) -> StreamConfig:
    merged = (config or StreamConfig()).evolve(**params)
    if not merged.name:
        raise ValueError("A stream needs a name.")
    return merged
