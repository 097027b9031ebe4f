"""A Celery application whose broker is a folder; `tasks.py COUNT` sends COUNT tasks."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import django
from celery import Celery, signals
from orders.publishing import PAUSE, SUBJECT, published

from nats_consumer import publish

folder = Path(os.environ["FAULTS_FOLDER"]) / "celery"
for name in ("queue", "control"):
    (folder / name).mkdir(parents=True, exist_ok=True)
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": folder / "queue",
    "data_folder_out": folder / "queue",
    "control_folder": folder / "control",
}
app.conf.worker_prefetch_multiplier = 1


@signals.worker_init.connect
def before_the_fork(**_: Any) -> None:
    """The parent has a connection of its own when it forks."""
    django.setup()
    published("first")


@app.task
def order(name: str) -> None:
    """Publish from a child."""
    publish(SUBJECT, json.dumps({"id": name, "pid": os.getpid()}), msg_id=name)
    time.sleep(PAUSE)


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        app.send_task("tasks.order", [f"order-{number}"])
