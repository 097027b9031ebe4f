"""Discovery: the `consumers` module of every installed app."""

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class NatsConsumerConfig(AppConfig):
    """Imports every app's `consumers` module, so that its classes register. An app without one is
    fine; one that fails to import raises."""

    name = "nats_consumer"
    verbose_name = "NATS consumers"

    def ready(self) -> None:
        """Called by Django once all apps and models are loaded."""
        from . import checks  # noqa: F401  (its checks register on import)

        autodiscover_modules("consumers")
