"""The command `nats_dlq` on the dead letters of a stream."""

import os
import time
from pathlib import Path

from django.core.management import call_command

from contestants.methods import REPLAYED
from contestants.ours import configure
from contestants.task import ready, report, task


def _main() -> None:
    part = task()
    configure(part.url, {})
    options = {
        "list": {"limit": part.messages},
        "replay": {"reason": REPLAYED},
    }[part.work]
    ready()
    with Path(os.devnull).open("w") as nowhere:
        began = time.perf_counter()
        call_command("nats_dlq", part.work, stream=part.stream, stdout=nowhere, **options)
        report(seconds=time.perf_counter() - began)


if __name__ == "__main__":
    _main()
