"""The app of the outbox."""

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    """From when it is ready, publish_on_commit() writes rows."""

    name = "nats_consumer.contrib.outbox"
    label = "nats_outbox"
    verbose_name = "NATS outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Called by Django once all apps and models are loaded."""
        from nats_consumer.publish import on_commit

        from . import checks  # noqa: F401  (its check registers on import)
        from .write import write

        on_commit.store_with(write, _relay)


def _relay(using: str) -> None:
    # On first use: only tests relay in this way.
    from .relay import relay_rows

    relay_rows(using, looks_at_streams=False)
