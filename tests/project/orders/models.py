from django.db import models


class Receipt(models.Model):
    """Row of a handler, one for each time that it ran."""

    number = models.IntegerField()
    thread = models.CharField(max_length=100)
