"""Messages that were handled."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class InboxMessage(models.Model):
    """A message that a consumer has handled. The row commits with what its handler wrote."""

    id = models.BigAutoField(primary_key=True)
    # A hash, because collations of databases may take "a" and "A" for the same; the other columns
    # are for people and for the cleanup.
    key = models.CharField(max_length=64, unique=True)
    # The durable.
    consumer = models.CharField(max_length=255)
    stream = models.CharField(max_length=255)
    subject = models.CharField(max_length=255)
    identity = models.CharField(max_length=255)
    sequence = models.BigIntegerField()
    handled_at = models.DateTimeField(db_default=Now(), db_index=True)

    class Meta:
        """The oldest first."""

        ordering: ClassVar[list[str]] = ["id"]

    def __str__(self) -> str:
        return f"{self.consumer}: {self.subject} {self.identity}"
