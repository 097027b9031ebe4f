"""Rows that the handlers leave in the database."""

from django.db import models


class Effect(models.Model):
    """One handling of one order that came to its end."""

    consumer = models.CharField(max_length=100)
    order = models.CharField(max_length=100)
