"""Tables of the shop.

Each table belongs to the checkout or to one consumer, and none has a foreign key to another:
consumers go at their own pace. A message that is delivered twice leaves one row, by a unique
constraint or by the inbox.
"""

from django.db import models


class Order(models.Model):
    """An order as the customer placed it. Written by the checkout."""

    number = models.PositiveIntegerField(primary_key=True)
    customer = models.CharField(max_length=100)
    total = models.DecimalField(max_digits=8, decimal_places=2)

    def __str__(self) -> str:
        return f"order {self.number}"


class Customer(models.Model):
    """The orders of a customer, added up. Written by CountSales."""

    name = models.CharField(max_length=100, primary_key=True)
    orders = models.PositiveIntegerField(default=0)
    spent_cents = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.name}: {self.orders} orders"


class PaymentAttempt(models.Model):
    """One try to charge the card of an order. Written by ChargeCards."""

    order_number = models.PositiveIntegerField()
    attempt = models.PositiveSmallIntegerField()
    error = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order_number", "attempt"], name="one_row_per_attempt")
        ]

    def __str__(self) -> str:
        return f"attempt {self.attempt} to pay order {self.order_number}: {self.error or 'paid'}"


class SearchEntry(models.Model):
    """The words by which an order is found. Written by IndexOrders."""

    order_number = models.PositiveIntegerField(primary_key=True)
    text = models.CharField(max_length=200)

    def __str__(self) -> str:
        return self.text


class Milestone(models.Model):
    """A step in the life of an order, as its customer sees it. Written by TrackOrders."""

    class Step(models.TextChoices):
        """The steps, in their order."""

        CREATED = "created"
        PAID = "paid"
        SHIPPED = "shipped"

    order_number = models.PositiveIntegerField()
    step = models.CharField(max_length=10, choices=Step)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order_number", "step"], name="one_row_per_step")
        ]

    def __str__(self) -> str:
        return f"order {self.order_number} is {self.step}"
