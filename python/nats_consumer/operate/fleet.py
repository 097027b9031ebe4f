"""Workers of the project, as they answer by the NATS service protocol."""
# The answers are those of engine/src/watch/announce.rs.

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nats_consumer.exceptions import Denied, NoResponders, RequestTimeout

if TYPE_CHECKING:
    from nats_consumer.client import Client

_QUESTION = "$SRV.STATS"
_KIND = "io.nats.micro.v1.stats_response"
# How long answers are waited for: a round trip to a worker, which answers at once.
_SECONDS = 0.3


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One consumer in one process, as it says itself. Counters are since the consumption began."""

    consumer: str
    stream: str
    durable: str
    host: str
    pid: int
    version: str
    started: str
    state: str
    reason: str
    state_seconds: int
    in_flight: int
    late: int
    concurrency: int
    received: int
    failed: int
    dead_lettered: int
    repairs: int


async def workers(client: "Client") -> list[Worker] | None:
    """The workers that answer within 0.3 seconds; None if this user may not ask."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(_QUESTION, b"", reply=inbox)
    found: list[Worker] = []
    is_silent = True
    loop = asyncio.get_running_loop()
    end = loop.time() + _SECONDS
    while (left := end - loop.time()) > 0:
        with suppress(RequestTimeout):
            answer = await subscription.next_msg(left)
            is_silent = False
            if answer.headers and "Status" in answer.headers:
                break  # nobody listens there
            with suppress(ValueError, KeyError, TypeError, IndexError, AttributeError):
                found.append(_read(json.loads(answer.data)))
    await subscription.unsubscribe()
    if is_silent and await _is_denied(client):
        return None
    return sorted(found, key=lambda each: (each.consumer, each.host))


async def _is_denied(client: "Client") -> bool:
    """Whether this user may not ask. A request hears of that; a published message does not."""
    try:
        await client.request(_QUESTION, timeout=_SECONDS)
    except Denied:
        return True
    except (NoResponders, RequestTimeout):
        pass
    return False


def _read(answer: dict[str, Any]) -> Worker:
    """Read an answer. Raises ValueError, KeyError and others for another service's."""
    if answer["type"] != _KIND:
        raise ValueError(answer["type"])
    about, data = answer["metadata"], answer["endpoints"][0]["data"]
    return Worker(
        consumer=answer["name"],
        version=answer["version"],
        started=answer["started"],
        pid=int(about["pid"]),
        **{key: about[key] for key in ("stream", "durable", "host")},
        **{key: data[key] for key in _OF_DATA},
    )


_OF_DATA = (
    "state",
    "reason",
    "state_seconds",
    "in_flight",
    "late",
    "concurrency",
    "received",
    "failed",
    "dead_lettered",
    "repairs",
)
