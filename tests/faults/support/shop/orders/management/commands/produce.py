"""manage.py produce: publish orders at a rate, and keep a ledger of what the stream confirmed."""

import hashlib
import json
import os
import random
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from nats_consumer import publish
from nats_consumer.exceptions import NatsConsumerError
from orders.ledger import note

PATIENCE = 0.5


class Command(BaseCommand):
    """Each order is published until the stream confirms it, with the same id each time."""

    help = "Publish orders."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--producer", default="p")
        parser.add_argument("--count", type=int, required=True)
        parser.add_argument("--rate", type=float, default=300, help="orders a second")
        parser.add_argument("--mix", default="[]", help="kinds of orders: [[weight, order], ...]")
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--tries", type=int, default=100, help="of one order")

    def handle(self, *_: Any, **options: Any) -> None:
        """Publish; the ledger `published` has a line for each try."""
        dice = random.Random(options["seed"])
        kinds = json.loads(options["mix"]) or [[1, {}]]
        started = time.monotonic()
        for number in range(options["count"]):
            time.sleep(max(0, started + number / options["rate"] - time.monotonic()))
            order = dice.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]
            order = {"id": f"{options['producer']}-{number}", **order}
            confirmed(json.dumps(order).encode(), order["id"], options["tries"])


def confirmed(payload: bytes, order: str, tries: int) -> None:
    """Publish until confirmed, at most this number of times."""
    subject = f"{os.environ['FAULTS_STREAM']}.created"
    line = {"id": order, "sha256": hashlib.sha256(payload).hexdigest()}
    headers = {"Trace": f"trace of {order}"}
    for _ in range(tries):
        note("published", event="TRY", **line)
        try:
            ack = publish(subject, payload, headers=headers, msg_id=order, timeout=2)
        except NatsConsumerError as error:
            note("published", event="UNKNOWN", error=repr(error), **line)
            time.sleep(PATIENCE)
        else:
            note("published", event="STORED", seq=ack.seq, duplicate=bool(ack.duplicate), **line)
            return
