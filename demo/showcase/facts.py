"""Facts of this moment, read from the server and the database."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_bytes
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.db.models import Sum

from nats_consumer import NatsConsumer
from nats_consumer.client import Client
from nats_consumer.contrib.outbox.models import OutboxMessage
from shop import events
from shop.consumers import ChargeCards, CountSales, IndexOrders, TrackOrders
from shop.models import Customer, Milestone, Order, PaymentAttempt, SearchEntry

CONSUMERS: tuple[type[NatsConsumer], ...] = (CountSales, ChargeCards, IndexOrders, TrackOrders)
DEAD_LETTERS = f"{events.STREAM}-dlq"

_REQUEST_SECONDS = 5.0


@dataclass(frozen=True)
class ConsumerFacts:
    """How far one consumer is, by the server's count.

    `matching` messages of the stream are for it. The server has made `deliveries` of them, has
    not yet delivered `waiting`, and has no answer yet for `in_flight`.
    """

    name: str
    lane: str
    matching: int = 0
    deliveries: int = 0
    waiting: int = 0
    in_flight: int = 0
    dead: int = 0

    @property
    def handled(self) -> int:
        """Messages that were acknowledged. What was published between the looks at the consumer
        and at the stream is not: without a delivery nothing is handled."""
        settled = self.matching - self.waiting - self.in_flight - self.dead
        return max(0, min(settled, self.deliveries - self.in_flight))

    @property
    def retried(self) -> int:
        """Deliveries beyond the first of each message."""
        return max(0, self.deliveries - (self.matching - self.waiting))


@dataclass(frozen=True)
class DatabaseFacts:
    """Rows that the checkout and the shop's handlers wrote."""

    orders: int
    counted_orders: int
    order_cents: int
    counted_cents: int
    search_entries: int
    attempts: int
    failed_attempts: int
    retries: int
    paid_orders: int
    created: int
    paid: int
    shipped: int


@dataclass(frozen=True)
class DeadLetter:
    """A message that failed for good, as the dead letter stream keeps it."""

    order: int
    consumer: str
    deliveries: int
    reason: str
    error: str


@dataclass(frozen=True)
class Facts:
    """One look at everything. `unpublished` events wait in the outbox."""

    unpublished: int
    published: Mapping[str, int]
    consumers: Mapping[str, ConsumerFacts]
    database: DatabaseFacts

    @property
    def is_quiet(self) -> bool:
        """Whether neither the relay nor a consumer has anything left to do."""
        return self.unpublished == 0 and all(
            c.waiting == 0 and c.in_flight == 0 for c in self.consumers.values()
        )


async def read(client: Client) -> Facts:
    """Look at the server and the database."""
    # One after the other, in the order in which events pass through the shop: who is quiet then
    # gets nothing new from the ones before.
    unpublished = await OutboxMessage.objects.acount()
    infos = {consumer: await _consumer_info(client, consumer) for consumer in CONSUMERS}
    published = await _messages_by_subject(client, events.STREAM)
    dead = await _messages_by_subject(client, DEAD_LETTERS)
    return Facts(
        unpublished=unpublished,
        published=published,
        consumers={
            consumer.__name__: _consumer_facts(consumer, info, published, dead)
            for consumer, info in infos.items()
        },
        database=await sync_to_async(_database_facts)(),
    )


async def dead_letters(client: Client) -> list[DeadLetter]:
    """Every message in the dead letter stream."""
    count = sum((await _messages_by_subject(client, DEAD_LETTERS)).values())
    return [await _dead_letter(client, sequence) for sequence in range(1, count + 1)]


async def _consumer_info(client: Client, consumer: type[NatsConsumer]) -> dict[str, Any]:
    return await _ask(client, f"CONSUMER.INFO.{events.STREAM}.{consumer().get_durable_name()}")


def _consumer_facts(
    consumer: type[NatsConsumer],
    info: dict[str, Any],
    published: Mapping[str, int],
    dead: Mapping[str, int],
) -> ConsumerFacts:
    name = consumer.__name__
    handler = getattr(consumer, "handle_message", None) or consumer.handle_batch
    lane = f"{consumer.kind} {'async' if iscoroutinefunction(handler) else 'def'}"
    matching = _matching(consumer, published)
    if "error" in info:  # the worker has not made it yet
        return ConsumerFacts(name=name, lane=lane, matching=matching, waiting=matching)
    return ConsumerFacts(
        name=name,
        lane=lane,
        matching=matching,
        deliveries=info["delivered"]["consumer_seq"],
        waiting=info["num_pending"],
        in_flight=info["num_ack_pending"],
        dead=dead.get(f"dlq.{events.STREAM}.{info['name']}", 0),
    )


def _matching(consumer: type[NatsConsumer], published: Mapping[str, int]) -> int:
    if consumer.filter_subject == "orders.*":
        return sum(published.values())
    return published.get(consumer.filter_subject or "", 0)


def _database_facts() -> DatabaseFacts:
    attempts = PaymentAttempt.objects.all()
    steps = Milestone.objects.all()
    counted = Customer.objects.aggregate(orders=Sum("orders"), cents=Sum("spent_cents"))
    ordered = Order.objects.aggregate(total=Sum("total"))["total"] or 0
    return DatabaseFacts(
        orders=Order.objects.count(),
        counted_orders=counted["orders"] or 0,
        order_cents=round(ordered * 100),
        counted_cents=counted["cents"] or 0,
        search_entries=SearchEntry.objects.count(),
        attempts=attempts.count(),
        failed_attempts=attempts.exclude(error="").count(),
        retries=attempts.filter(attempt__gt=1).count(),
        paid_orders=attempts.filter(error="").values("order_number").distinct().count(),
        created=steps.filter(step=Milestone.Step.CREATED).count(),
        paid=steps.filter(step=Milestone.Step.PAID).count(),
        shipped=steps.filter(step=Milestone.Step.SHIPPED).count(),
    )


async def _messages_by_subject(client: Client, stream: str) -> dict[str, int]:
    info = await _ask(client, f"STREAM.INFO.{stream}", {"subjects_filter": ">"})
    return {} if "error" in info else dict(info["state"].get("subjects") or {})


async def _dead_letter(client: Client, sequence: int) -> DeadLetter:
    found = await _ask(client, f"STREAM.MSG.GET.{DEAD_LETTERS}", {"seq": sequence})
    message = found["message"]
    _, _, header_lines = base64.b64decode(message["hdrs"]).partition(b"\r\n")
    headers = message_from_bytes(header_lines)
    return DeadLetter(
        order=json.loads(base64.b64decode(message["data"]))["number"],
        consumer=headers["Dlq-Consumer"],
        deliveries=int(headers["Dlq-Deliveries"]),
        reason=headers["Dlq-Reason"],
        error=headers["Dlq-Error"],
    )


async def _ask(client: Client, subject: str, body: Mapping[str, Any] | None = None) -> Any:
    payload = json.dumps(body).encode() if body else b""
    reply = await client.request(f"$JS.API.{subject}", payload, timeout=_REQUEST_SECONDS)
    return json.loads(reply.data)
