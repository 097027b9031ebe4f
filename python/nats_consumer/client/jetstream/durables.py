"""Looking after the consumers of a stream."""
# ruff: noqa: ASYNC109 - the parameters are those of nats-py

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nats_consumer.api import ConsumerConfig, ConsumerInfo, ConsumerPause, ConsumerReset
from nats_consumer.api.wire import to_timestamp
from nats_consumer.names import check_name, subject_problem

from .requests import Requests

_LONG_AGO = "1970-01-01T00:00:00Z"


class Durables(Requests):
    """The part of JetStream that concerns consumers. A `timeout` replaces the usual one."""

    async def consumer_info(
        self, stream: str, consumer: str, timeout: float | None = None
    ) -> ConsumerInfo:
        """How the consumer is configured and how far it is. Raises StreamNotFound and
        ConsumerGone."""
        return ConsumerInfo.from_response(
            await self._consumer("INFO", stream, consumer, limit=timeout)
        )

    async def consumers_info(self, stream: str, offset: int | None = None) -> list[ConsumerInfo]:
        """All consumers of the stream, the first `offset` left out. Raises StreamNotFound."""
        check_name(stream, "name of a stream")
        found = await self._pages(f"CONSUMER.LIST.{stream}", "consumers", offset or 0)
        return [ConsumerInfo.from_response(consumer) for consumer in found]

    async def add_consumer(
        self,
        stream: str,
        config: ConsumerConfig | None = None,
        timeout: float | None = None,
        **params: Any,
    ) -> ConsumerInfo:
        """Create the consumer of `config` and `params`, or change the one that exists as far as
        the server allows. Without a name the server makes one up, and forgets the consumer when
        it is not used. Raises StreamNotFound and ApiError."""
        check_name(stream, "name of a stream")
        merged = ConsumerConfig.coerce(config or {}).evolve(**params)
        subject = f"CONSUMER.CREATE.{stream}"
        name = merged.name or merged.durable_name
        if name:
            subject += f".{check_name(name, 'name of a consumer')}"
            merged = merged.evolve(name=name)
            one = merged.filter_subject
            # An invalid subject stays in the body alone, so that the server says what is wrong.
            if one and one != ">" and subject_problem(one) is None:
                subject += f".{one}"
        body = {"stream_name": stream, "config": merged.as_dict()}
        return ConsumerInfo.from_response(await self._request_about(stream, subject, body, timeout))

    async def delete_consumer(self, stream: str, consumer: str) -> bool:
        """Delete the consumer and its position. Raises StreamNotFound and ConsumerGone."""
        return bool((await self._consumer("DELETE", stream, consumer))["success"])

    async def pause_consumer(
        self,
        stream: str,
        consumer: str,
        pause_until: datetime | str,
        timeout: float | None = None,
    ) -> ConsumerPause:
        """Deliver nothing until `pause_until`, a datetime or a text as in RFC 3339. Raises
        StreamNotFound and ConsumerGone."""
        body = {"pause_until": to_timestamp(pause_until)}
        return ConsumerPause.from_response(
            await self._consumer("PAUSE", stream, consumer, body, timeout)
        )

    async def resume_consumer(
        self, stream: str, consumer: str, timeout: float | None = None
    ) -> ConsumerPause:
        """Deliver again. Raises StreamNotFound and ConsumerGone."""
        return await self.pause_consumer(stream, consumer, _LONG_AGO, timeout)

    async def reset_consumer(
        self,
        stream: str,
        consumer: str,
        seq: int | None = None,
        timeout: float | None = None,
    ) -> ConsumerReset:
        """Forget what the consumer has delivered: it goes on behind its last acknowledged message,
        or with the message number `seq`. Needs a nats-server 2.14. Raises StreamNotFound,
        ConsumerGone, and BadRequest where the consumer may not begin there."""
        body = {"seq": seq} if seq else None
        answer = await self._consumer("RESET", stream, consumer, body, timeout)
        return ConsumerReset(info=ConsumerInfo.from_response(answer), reset_seq=answer["reset_seq"])

    async def _consumer(
        self,
        verb: str,
        stream: str,
        consumer: str,
        body: Mapping[str, Any] | None = None,
        limit: float | None = None,
    ) -> dict[str, Any]:
        check_name(stream, "name of a stream")
        check_name(consumer, "name of a consumer")
        subject = f"CONSUMER.{verb}.{stream}.{consumer}"
        return await self._request_about(stream, subject, body, limit)
