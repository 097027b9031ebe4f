"""The server's own account, asked for through a client that is not ours."""

import asyncio
import base64
import json
import re
from dataclasses import dataclass
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client

from tests.waiting import eventually

ADVISORIES = "advisories"
PATIENCE = 30
_NO_MESSAGE = 10037
_NO_STREAM = 10059


@dataclass(frozen=True)
class Stored:
    """A message as a stream has it; `headers` are its lines in their order."""

    seq: int
    subject: str
    headers: tuple[tuple[str, str], ...]
    payload: bytes


class Witness:
    """Asks the servers at `urls`; an answer that does not come is an error of the test."""

    def __init__(self, urls: list[str], **options: Any) -> None:
        self._urls = urls
        self._options = options

    def create_stream(self, name: str, **config: Any) -> None:
        """Create a stream of the subjects `<name>.>`, with other settings as given."""
        config = {"name": name, "subjects": [f"{name}.>"], **config}
        self.ask(f"STREAM.CREATE.{name}", {"storage": "file", "num_replicas": 1, **config})

    def keep_advisories(self, replicas: int = 1) -> None:
        """Keep the server's advisories about deliveries in a stream from now on."""
        subjects = ["$JS.EVENT.ADVISORY.CONSUMER.>"]
        self.create_stream(ADVISORIES, subjects=subjects, num_replicas=replicas)

    def stream(self, name: str) -> dict[str, Any]:
        """The stream's `config` and `state`."""
        return self.ask(f"STREAM.INFO.{name}")

    def consumer(self, stream: str, durable: str) -> dict[str, Any]:
        """The durable's `num_pending`, `num_ack_pending`, `ack_floor`, `cluster`."""
        return self.ask(f"CONSUMER.INFO.{stream}.{durable}")

    def messages(self, stream: str) -> list[Stored]:
        """Everything in the stream, bytes as they are; nothing if there is no such stream."""
        return asyncio.run(self._messages(stream))

    def ask(self, subject: str, body: Any = None) -> dict[str, Any]:
        """The answer of the JetStream API, waited for. Raises RefusedError for an error in it."""
        return eventually(lambda: self._answer(subject, body), PATIENCE, lambda: subject)

    def publish(self, subject: str, payload: bytes) -> None:
        """Publish without waiting for a stream."""
        asyncio.run(self._publish(subject, payload))

    def _answer(self, subject: str, body: Any) -> dict[str, Any] | None:
        try:
            return asyncio.run(self._ask_once(subject, body))
        except (nats.errors.Error, UnavailableError):
            return None  # a cluster may have no leader for a while

    async def _connect(self) -> Client:
        return await nats.connect(
            self._urls, connect_timeout=5, error_cb=_say_nothing, **self._options
        )

    async def _ask_once(self, subject: str, body: Any) -> dict[str, Any]:
        client = await self._connect()
        try:
            return await _ask(client, subject, body)
        finally:
            await client.close()

    async def _publish(self, subject: str, payload: bytes) -> None:
        client = await self._connect()
        await client.publish(subject, payload)
        await client.drain()

    async def _messages(self, stream: str) -> list[Stored]:
        client = await self._connect()
        found, after = [], 1
        try:
            while True:
                body = {"seq": after, "next_by_subj": ">"}
                answer = await _ask(client, f"STREAM.MSG.GET.{stream}", body)
                found.append(_stored(answer["message"]))
                after = found[-1].seq + 1
        except RefusedError as refused:
            if refused.code not in (_NO_MESSAGE, _NO_STREAM):
                raise
            return found
        finally:
            await client.close()


class RefusedError(Exception):
    """The JetStream API answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error)
        self.code = error.get("err_code")


class UnavailableError(Exception):
    """JetStream has no leader, or not enough servers."""


async def _say_nothing(_error: Exception) -> None:
    """A server that is away is what these tests are about."""


async def _ask(client: Client, subject: str, body: Any) -> dict[str, Any]:
    payload = b"" if body is None else json.dumps(body).encode()
    answer = await client.request(f"$JS.API.{subject}", payload, timeout=5)
    content: dict[str, Any] = json.loads(answer.data)
    if error := content.get("error"):
        raise (
            UnavailableError(error["description"]) if error["code"] == 503 else RefusedError(error)
        )
    return content


def _stored(message: dict[str, Any]) -> Stored:
    block = base64.b64decode(message.get("hdrs", "")).decode("latin-1")
    lines = re.findall(r"^([^:\r\n]+): ?(.*?)\r$", block, re.MULTILINE)
    payload = base64.b64decode(message.get("data", ""))
    return Stored(message["seq"], message["subject"], tuple(lines), payload)
