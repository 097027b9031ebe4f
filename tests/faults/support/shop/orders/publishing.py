"""An order from wherever: a view, a task, a child process."""

import asyncio
import json
import os
import time
from typing import Any

from nats_consumer import apublish, publish

# So that one process cannot do it all.
PAUSE = 0.05
SUBJECT = f"{os.environ.get('FAULTS_STREAM')}.created"


def published(name: str) -> dict[str, Any]:
    """Publish an order; returns what the stream confirmed, and which process it was."""
    ack = publish(SUBJECT, json.dumps({"id": name}), msg_id=name)
    time.sleep(PAUSE)
    return {"seq": ack.seq, "pid": os.getpid()}


async def apublished(name: str) -> dict[str, Any]:
    """published() for async code."""
    ack = await apublish(SUBJECT, json.dumps({"id": name}), msg_id=name)
    await asyncio.sleep(PAUSE)
    return {"seq": ack.seq, "pid": os.getpid()}
