"""Lines that survive the process that wrote them: one `write` to a file opened with O_APPEND."""

import json
import os
import time
from functools import cache
from pathlib import Path
from typing import Any


def note(ledger: str, **entry: Any) -> None:
    """Append `entry` with the time, which all processes of the machine share, and who wrote it."""
    entry |= {"at": time.monotonic(), "pid": os.getpid()}
    os.write(_opened(ledger), json.dumps(entry).encode() + b"\n")


@cache
def _opened(ledger: str) -> int:
    path = Path(os.environ["FAULTS_FOLDER"]) / f"{ledger}.jsonl"
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
