"""Discovery: the `consumers` module of every installed app, and the one beside manage.py."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from django.apps import AppConfig, apps
from django.utils.module_loading import module_has_submodule

if TYPE_CHECKING:
    from .publish.publisher import Publisher


class NatsConsumerConfig(AppConfig):
    """Imports every app's `consumers` module, and a top-level one, so that their classes register.
    An app without one is fine; one that fails to import raises. Those that
    NATS_CONSUMER["exclude_apps"] names are left out."""

    name = "nats_consumer"
    verbose_name = "NATS consumers"

    def ready(self) -> None:
        """Called by Django once all apps and models are loaded."""
        from . import checks  # noqa: F401  (its checks register on import)
        from .publish.publisher import replace_in_test_runs

        replace_in_test_runs(_outbox_publisher)
        excluded = _excluded()
        for config in apps.get_app_configs():
            has_consumers = config.module and module_has_submodule(config.module, "consumers")
            if has_consumers and not excluded & {config.label, config.name}:
                _import(config)
        if find_spec("consumers") is not None:
            import_module("consumers")


def _outbox_publisher(using: str) -> "Publisher":
    # On first use: only tests need it.
    from .testing.capture import outbox_publisher

    return outbox_publisher(using)


def _excluded() -> set[str]:
    from .exceptions import ConfigurationError
    from .settings import excluded_apps

    try:
        return set(excluded_apps())
    except ConfigurationError:
        return set()  # a check says so


def _import(config: AppConfig) -> None:
    try:
        import_module(f"{config.name}.consumers")
    except ImportError as error:
        error.add_note(
            f"nats_consumer imports the consumers module of each installed app. If {config.name} "
            f'has no NATS consumers, leave it out: NATS_CONSUMER["exclude_apps"] = '
            f"[{config.label!r}]."
        )
        raise
