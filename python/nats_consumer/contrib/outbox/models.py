"""Messages that wait for the relay, and who relays."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class OutboxMessage(models.Model):
    """A message that its transaction has committed and no stream has confirmed yet. The relay
    deletes the row once a stream has: there is no state to keep."""

    id = models.BigAutoField(primary_key=True)
    subject = models.CharField(max_length=1024)
    payload = models.BinaryField()
    # JSON without the message id, or empty. Text, because the relay only passes it on.
    headers = models.TextField(blank=True)
    msg_id = models.CharField(max_length=255)
    # What must stay in order; the subject where the caller named nothing.
    key = models.CharField(max_length=1024)
    created_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveIntegerField(default=0)
    # None where no stream has refused it.
    next_attempt_at = models.DateTimeField(null=True, blank=True, db_index=True)
    error = models.TextField(blank=True)

    class Meta:
        """Rows are sent in the order of their ids."""

        ordering: ClassVar[list[str]] = ["id"]

    def __str__(self) -> str:
        return f"{self.pk}: {self.subject}"


class RelayLease(models.Model):
    """The relay that publishes the rows of this database, and the end of its lease.

    The end is by the clock of the database."""

    name = models.CharField(max_length=64, primary_key=True)
    holder = models.CharField(max_length=64, blank=True)
    until = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.name}: {self.holder or 'nobody'}"
