"""FastStream on NATS: a subscriber that decodes JSON, as its documentation has it."""

import asyncio
import logging
from typing import Any

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

from contestants.task import run, task
from contestants.work import tally

_PART = task()
_BATCH = 100

logging.disable(logging.WARNING)
_BROKER = NatsBroker(_PART.url, logger=None)


async def _parse(_message: dict[str, Any]) -> None:
    tally.handled += 1


async def _main() -> None:
    subscriber = _BROKER.subscriber(
        _PART.subject,
        stream=JStream(_PART.stream, declare=False),
        durable=_PART.durable,
        config=ConsumerConfig(filter_subject=_PART.subject, max_ack_pending=20_000),
        pull_sub=PullSub(batch_size=_BATCH, timeout=5.0) if _PART.kind == "pull" else False,
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    subscriber(_parse)
    await _BROKER.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(_main, tally, _PART.loop)
