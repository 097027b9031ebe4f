"""taskiq on JetStream: messages in its own format, its receiver in this process."""

import json
import logging
from typing import Any

from nats.js.api import ConsumerConfig
from taskiq.api import run_receiver_task
from taskiq_nats import PullBasedJetStreamBroker, PushBasedJetStreamBroker

from contestants.task import run, task
from contestants.work import tally

_PART = task()

logging.disable(logging.WARNING)
_CONFIG = ConsumerConfig(
    durable_name=_PART.durable, filter_subject=_PART.subject, max_ack_pending=20_000
)
_BROKER: Any = (
    PullBasedJetStreamBroker(
        _PART.url,
        subject=_PART.subject,
        stream_name=_PART.stream,
        durable=_PART.durable,
        consumer_config=_CONFIG,
        pull_consume_batch=100,
        pull_consume_timeout=5,
    )
    if _PART.kind == "pull"
    else PushBasedJetStreamBroker(
        _PART.url, subject=_PART.subject, stream_name=_PART.stream, consumer_config=_CONFIG
    )
)


@_BROKER.task(task_name="parse")
async def parse(text: str) -> None:
    """Parse and count."""
    json.loads(text)
    tally.handled += 1


async def _main() -> None:
    await run_receiver_task(_BROKER, run_startup=True, max_async_tasks=100, max_prefetch=100)


if __name__ == "__main__":
    run(_main, tally, _PART.loop)
