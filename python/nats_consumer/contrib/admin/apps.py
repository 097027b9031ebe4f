"""The app of the pages in Django's admin."""

from django.apps import AppConfig


class NatsAdminConfig(AppConfig):
    """Its `admin` module is imported by Django's admin only."""

    name = "nats_consumer.contrib.admin"
    label = "nats_admin"
    verbose_name = "NATS"
    default_auto_field = "django.db.models.BigAutoField"
