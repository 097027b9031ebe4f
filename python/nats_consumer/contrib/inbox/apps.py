"""The app of the inbox."""

from django.apps import AppConfig


class InboxConfig(AppConfig):
    """From when it is ready, consumers may be idempotent."""

    name = "nats_consumer.contrib.inbox"
    label = "nats_inbox"
    verbose_name = "NATS inbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Called by Django once all apps and models are loaded."""
        from nats_consumer.declare import once

        from . import consumer

        once.handle_with(consumer)
