"""Many consumers in one worker, each with a subject of its own."""

import os
import signal
import sys
import time
from typing import Any

from django.core.management import call_command

from contestants.ours import configure
from contestants.task import Task, ready, report, task

_STOP_SECONDS = 1.0
_handled_at: list[float] = []


def _declare(part: Task, number: int, subject: str) -> str:
    """Declare the consumer of a subject of the stream that its first token names."""
    from nats_consumer import operations
    from nats_consumer.consumer import JetstreamPullConsumer, JetstreamPushConsumer

    stream = subject.partition(".")[0]

    def setup(_self: Any) -> list[operations.CreateStream]:
        return [operations.CreateStream(name=stream, subjects=[f"{stream}.>"])]

    async def note(_self: Any, _message: Any) -> None:
        _handled_at.append(time.time())
        if len(_handled_at) == part.messages:
            os.kill(os.getpid(), signal.SIGTERM)

    def nothing(_self: Any, _message: Any) -> None:
        pass

    base = JetstreamPullConsumer if part.kind == "pull" else JetstreamPushConsumer
    attributes = {
        "__module__": __name__,
        "stream_name": stream,
        "filter_subject": subject,
        "setup": setup,
        "handle_message": nothing if part.options.get("def") else note,
    }
    return type(f"Fleet{number}Consumer", (base,), attributes).__name__


def _main() -> None:
    part = task()
    configure(part.url, {})
    names = [_declare(part, number, subject) for number, subject in enumerate(part.subjects)]
    ready()
    call_command(
        "nats_consumer",
        *names,
        setup=part.work == "set up",
        log_level="ERROR",
        shutdown_timeout=_STOP_SECONDS,
        skip_checks=False,
    )
    # By the clock that the harness can compare with its own.
    report(first=_handled_at[0] if _handled_at else 0, last=_handled_at[-1] if _handled_at else 0)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
