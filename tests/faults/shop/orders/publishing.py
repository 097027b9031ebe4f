"""An order from wherever: a view, a task, a child process."""

import json
import os
from typing import Any

from nats_consumer import apublish, publish

SUBJECT = f"{os.environ.get('FAULTS_STREAM')}.created"


def published(name: str) -> dict[str, Any]:
    """Publish an order; returns what the stream confirmed, and which process it was."""
    ack = publish(SUBJECT, json.dumps({"id": name}), msg_id=name)
    return {"seq": ack.seq, "pid": os.getpid()}


async def apublished(name: str) -> dict[str, Any]:
    """published() for async code."""
    ack = await apublish(SUBJECT, json.dumps({"id": name}), msg_id=name)
    return {"seq": ack.seq, "pid": os.getpid()}
