"""Tests of the shop: orders run through all consumers in memory, without a server and without
waiting. `python manage.py test` in this folder runs them."""

from datetime import timedelta
from decimal import Decimal

from nats_consumer.testing import NatsTestCase

from . import checkout, events, payments
from .consumers import ChargeCards, CountSales
from .models import Customer, Milestone, PaymentAttempt, SearchEntry


def order(card: str = payments.GOOD_CARD) -> events.OrderCreated:
    """An order of Ada's."""
    return events.OrderCreated(number=7, customer="Ada", total=Decimal("12.50"), card=card)


class OrderTests(NatsTestCase):
    """An order from the checkout to the door."""

    def test_an_order_is_paid_counted_and_sent(self):
        checkout.place(order())
        self.nats.run()
        self.assertPublished(events.PAID, {"number": 7}, count=1)
        self.assertEqual(Customer.objects.get().spent_cents, 1250)
        self.assertEqual(SearchEntry.objects.get().text, "7 Ada")
        steps = Milestone.objects.values_list("step", flat=True)
        self.assertEqual(set(steps), {"created", "paid", "shipped"})

    def test_a_bank_that_does_not_answer_is_asked_again(self):
        checkout.place(order(payments.CARD_THAT_FAILS_TWICE))
        self.nats.run()
        errors = list(PaymentAttempt.objects.order_by("attempt").values_list("error", flat=True))
        self.assertEqual(errors, ["bank did not answer", "bank did not answer", ""])
        self.assertGreaterEqual(self.nats.waited, timedelta(seconds=1.5))

    def test_a_stolen_card_is_kept_for_someone_to_look_at(self):
        checkout.place(order(payments.STOLEN_CARD))
        self.nats.run()
        [letter] = self.assertDeadLettered(ChargeCards, reason="exhausted")
        self.assertIn("card reported stolen", letter.error)
        self.assertFalse(Milestone.objects.filter(step="paid").exists())

    def test_an_order_that_comes_twice_is_counted_once(self):
        checkout.place(order())
        self.nats.run()
        self.nats.redeliver(CountSales)
        self.nats.run()
        self.assertEqual(Customer.objects.get().orders, 1)
