"""Messages as a stream keeps them, without a consumer."""

import json
from contextlib import suppress
from datetime import datetime
from typing import Any

from nats_consumer.api import Header, RawStreamMsg
from nats_consumer.api.wire import from_timestamp, to_timestamp
from nats_consumer.exceptions import ApiError, Disconnected, RequestTimeout
from nats_consumer.names import check_name

from .requests import Requests

_NOT_FOUND, _NO_MESSAGE_FOUND = "404", 10037
_SUBJECT, _SEQUENCE, _TIME = "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp"


class Stored(Requests):
    """The part of JetStream that concerns stored messages."""

    async def get_msg(
        self,
        stream_name: str,
        seq: int | None = None,
        subject: str | None = None,
        direct: bool | None = False,
        next: bool | None = False,  # noqa: A002 - nats-py's name
    ) -> RawStreamMsg:
        """The message number `seq`; or the last one of `subject`; or, with `next`, the first one
        of `subject` from `seq` on. `direct` asks any replica, and needs a stream that allows it.
        Raises StreamNotFound, and NotFound if there is no such message."""
        check_name(stream_name, "name of a stream")
        if next:
            body: dict[str, Any] = {"seq": seq, "next_by_subj": subject}
        else:
            body = {"last_by_subj": subject} if subject else {"seq": seq}
        if direct:
            # Unreadable headers break the connection. In JSON they do not.
            with suppress(Disconnected, RequestTimeout):
                return await self._direct(stream_name, body)
        answer = await self._request_about(stream_name, f"STREAM.MSG.GET.{stream_name}", body)
        return RawStreamMsg.from_response(answer["message"])

    async def first_msg_since(
        self, stream_name: str, time: datetime | str, subject: str = ">"
    ) -> RawStreamMsg:
        """The first message of `subject` that was stored at `time` or later. Raises StreamNotFound,
        and NotFound if there is none."""
        check_name(stream_name, "name of a stream")
        body = {"start_time": to_timestamp(time), "next_by_subj": subject}
        answer = await self._request_about(stream_name, f"STREAM.MSG.GET.{stream_name}", body)
        return RawStreamMsg.from_response(answer["message"])

    async def get_last_msg(
        self, stream_name: str, subject: str, direct: bool | None = False
    ) -> RawStreamMsg:
        """The last message of `subject`. Raises StreamNotFound, and NotFound if there is none."""
        return await self.get_msg(stream_name, subject=subject, direct=direct)

    async def delete_msg(self, stream_name: str, seq: int) -> bool:
        """Delete the message number `seq`. Raises StreamNotFound, and ApiError if there is no such
        message."""
        check_name(stream_name, "name of a stream")
        subject = f"STREAM.MSG.DELETE.{stream_name}"
        return bool((await self._request_about(stream_name, subject, {"seq": seq}))["success"])

    async def _direct(self, stream: str, body: dict[str, Any]) -> RawStreamMsg:
        subject = f"{self._prefix}.DIRECT.GET.{stream}"
        payload = json.dumps(body).encode()
        answer = await self._connection.request(subject, payload, self._timeout)
        headers = answer.headers or {}
        if status := headers.get(Header.STATUS):
            number = _NO_MESSAGE_FOUND if status == _NOT_FOUND else 0
            words = headers.get(Header.DESCRIPTION, "no message found")
            raise ApiError(int(status), number, words)
        return RawStreamMsg(
            subject=headers[_SUBJECT],
            seq=int(headers[_SEQUENCE]),
            data=answer.data or None,
            headers=headers,
            time=from_timestamp(headers[_TIME]),
        )
