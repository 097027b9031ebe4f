"""The operations of nats_consumer.operations, where a migration looks for them:

    from nats_consumer.migrations import CreateStream

    class Migration(migrations.Migration):
        operations = [CreateStream(name="orders", subjects=["orders.>"])]

This is a module and no package, so that Django sees an app without migrations."""

from django.db.migrations import Migration

from .operations import (
    CreateConsumer,
    CreateOrUpdateStream,
    CreateStream,
    DeleteConsumer,
    DeleteStream,
    UpdateStream,
)

__all__ = [
    "CreateConsumer",
    "CreateOrUpdateStream",
    "CreateStream",
    "DeleteConsumer",
    "DeleteStream",
    "NatsForwardMigration",
    "UpdateStream",
]


class NatsForwardMigration(Migration):
    """A migration like any other; older versions had the name."""
