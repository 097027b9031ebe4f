"""The table that the handlers write to."""

from django.db import models


class Entry(models.Model):
    """A message that arrived."""

    text = models.CharField(max_length=200)

    class Meta:
        app_label = "ledger"
