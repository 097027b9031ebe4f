from django.db import models


class Receipt(models.Model):
    """What a handler wrote: one row for each time that it ran."""

    number = models.IntegerField()
    thread = models.CharField(max_length=100)
