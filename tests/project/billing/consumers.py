"""A pull consumer with a plain `def` handler that uses the database."""

import json
import logging
import os
from typing import Any

from django.db import connection

from nats_consumer import JetstreamPullConsumer, operations

logger = logging.getLogger("nats_consumer.tests")

STREAM = os.environ.get("STREAM", "orders")


class InvoiceConsumer(JetstreamPullConsumer):
    stream_name = STREAM
    filter_subject = f"{STREAM}.created"
    concurrency = 2
    initial_retry_delay = 0.1

    def setup(self) -> operations.StreamOperation:
        return operations.CreateStream(name=STREAM, subjects=[f"{STREAM}.>"])

    def handle_message(self, message: Any) -> None:
        order = json.loads(message.data)
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s", [order["id"]])
            logger.info("invoiced %s", cursor.fetchone()[0])
