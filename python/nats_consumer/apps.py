"""Discovery: the `consumers` module of every installed app, and the one beside manage.py."""

from importlib import import_module
from importlib.util import find_spec

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class NatsConsumerConfig(AppConfig):
    """Imports every app's `consumers` module, and a top-level one, so that their classes register.
    An app without one is fine; one that fails to import raises."""

    name = "nats_consumer"
    verbose_name = "NATS consumers"

    def ready(self) -> None:
        """Called by Django once all apps and models are loaded."""
        from . import checks  # noqa: F401  (its checks register on import)

        autodiscover_modules("consumers")
        if find_spec("consumers") is not None:
            import_module("consumers")
