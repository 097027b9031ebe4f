"""Messages that a test publishes, captured instead of sent."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nats_consumer.api import PubAck
from nats_consumer.exceptions import NoResponders
from nats_consumer.publish.drafts import MSG_ID, Draft
from nats_consumer.publish.publisher import replaced_by
from nats_consumer.publish.times import SCHEDULE, time_of
from nats_consumer.settings import DEFAULT_CONNECTION

if TYPE_CHECKING:
    from nats_consumer._native import Drafts, Msg

STREAM = "captured"


@dataclass(frozen=True)
class Published:
    """A captured message, and the connection that it was published to."""

    subject: str
    data: bytes
    headers: Mapping[str, str] | None = None
    using: str = DEFAULT_CONNECTION

    @property
    def msg_id(self) -> str | None:
        """The message id it was published with."""
        return (self.headers or {}).get(MSG_ID)

    @property
    def at(self) -> datetime | None:
        """When the server is to publish it, in UTC; None for at once."""
        return time_of((self.headers or {}).get(SCHEDULE))

    def json(self) -> Any:
        """The data, read as JSON."""
        return json.loads(self.data)


# As django.core.mail.outbox.
outbox: list[Published] = []
"""The messages that a test run has published, where NATS_CONSUMER["publish_in_tests"] is False.
Each test of a NatsMixin, or with the fixtures, begins with an empty one."""


def outbox_publisher(using: str) -> "_Recorder":
    """The publisher of a connection that puts messages into the outbox."""
    return _Recorder(outbox, using)


@contextmanager
def capture_published() -> Iterator[list[Published]]:
    """Capture the messages that this process publishes in the body, and yield the list of them.

    publish(), publish_many(), their async twins and publish_on_commit() send nothing then. They
    raise for a message that cannot be sent, and succeed with every other. request() raises
    NoResponders: nobody answers in a test."""
    captured: list[Published] = []
    with replaced_by(lambda using: _Recorder(captured, using)):
        yield captured


class _Recorder:
    """Stands in for the engine's publisher."""

    def __init__(self, captured: list[Published], using: str) -> None:
        self._captured = captured
        self._using = using

    def publish(self, draft: Draft, timeout: float) -> PubAck:  # noqa: ARG002
        from nats_consumer import _native

        _native.check_draft(draft)
        self._captured.append(Published(*draft, self._using))
        return PubAck(stream=STREAM, seq=len(self._captured))

    def request(self, draft: Draft, timeout: float) -> "Msg":
        self.publish(draft, timeout)
        raise NoResponders(f"Nobody answers on {draft[0]}: tests send nothing.")

    async def arequest(self, draft: Draft, timeout: float) -> "Msg":  # noqa: ASYNC109
        return self.request(draft, timeout)

    def nudge(self, subject: str) -> None:
        pass

    def max_payload(self) -> None:
        pass

    async def apublish(self, draft: Draft, timeout: float) -> PubAck:  # noqa: ASYNC109
        return self.publish(draft, timeout)

    def publish_many(
        self, drafts: "Drafts", timeout: float
    ) -> tuple[list[PubAck], list[tuple[int, Exception]]]:
        return [self.publish(drafts[index], timeout) for index in range(len(drafts))], []
