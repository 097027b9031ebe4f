"""Everything that users import is found at its documented place."""

import importlib

import pytest
from django.core.management import BaseCommand

import nats_consumer
from nats_consumer import operations

# Module by module: the names that the documentation and the earlier packages import from it.
NAMES = {
    "nats_consumer": (
        "Ack ConsumerHandler DeadLetter Drop ErrorAckBehavior JetstreamPullConsumer "
        "JetstreamPushConsumer Message NatsConsumer Outcome Outgoing PubAck Retry __version__ "
        "apublish apublish_many arequest current_message event get_nats_client handle operations "
        "publish publish_many publish_many_on_commit publish_on_commit request"
    ),
    "nats_consumer.api": (
        "ConsumerConfig DiscardPolicy Placement RetentionPolicy StorageType StreamConfig"
    ),
    "nats_consumer.client": "Client get_nats_client",
    "nats_consumer.consumer": (
        "ErrorAckBehavior JetstreamPullConsumer JetstreamPushConsumer NatsConsumer NatsConsumerBase"
    ),
    "nats_consumer.contrib.outbox.lag": "lag",
    "nats_consumer.dead_letters": "Selection dead_letters",
    "nats_consumer.errors": "Error NoServersError TimeoutError",
    "nats_consumer.exceptions": (
        "ConfigurationError DjangoNatsError NatsConsumerError NoStreamResponse StreamNotFound "
        "Unreachable"
    ),
    "nats_consumer.handler": "ConsumerHandler handle",
    "nats_consumer.js.api": "StorageType StreamConfig",
    "nats_consumer.js.errors": "NoStreamResponseError NotFoundError",
    "nats_consumer.logs": "MessageFields current_message_is_known",
    "nats_consumer.message": "Message Metadata SequencePair",
    "nats_consumer.migrations": (
        "CreateConsumer CreateOrUpdateStream CreateStream DeleteConsumer DeleteStream "
        "NatsForwardMigration UpdateStream"
    ),
    "nats_consumer.operations": (
        "CreateConsumer CreateOrUpdateStream CreateStream DeleteConsumer DeleteStream "
        "StreamOperation UpdateStream api"
    ),
    "nats_consumer.outcomes": "Ack DeadLetter Drop ErrorAckBehavior Outcome Retry",
    "nats_consumer.publish": (
        "Outgoing apublish apublish_many arequest publish publish_many publish_many_on_commit "
        "publish_on_commit request"
    ),
    "nats_consumer.settings": "connect_args default_durable_name event_loop_policy",
    "nats_consumer.testing": (
        "Attempt FakeMessage FakeMetadata FakeSequencePair Nats NatsMixin NatsTestCase "
        "NatsTransactionTestCase NotModelled Published StoredMessage adeliver capture_published "
        "deliver outbox"
    ),
    "nats_consumer.testing.fixtures": "nats nats_server nats_worker published",
}
COMMANDS = [
    "nats_apply",
    "nats_asyncapi",
    "nats_consumer",
    "nats_delete_stream",
    "nats_dlq",
    "nats_durable",
    "nats_plan",
    "nats_status",
    "nats_update_stream",
]


@pytest.mark.parametrize("module", NAMES)
def test_what_users_import_is_found_where_the_documentation_says(module: str) -> None:
    names = NAMES[module].split()
    lines = "".join(f"from {module} import {name}\n" for name in names)
    exec(compile(lines, module, "exec"), {})  # as a project writes it


def test_the_names_that_the_package_exports_are_all_documented_ones() -> None:
    assert set(nats_consumer.__all__) <= set(NAMES["nats_consumer"].split())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_where_django_looks_for_it(command: str) -> None:
    module = importlib.import_module(f"nats_consumer.management.commands.{command}")
    assert issubclass(module.Command, BaseCommand)


@pytest.mark.parametrize("name", operations.__all__)
def test_a_written_migration_imports_an_operation_by_its_public_name(name: str) -> None:
    each = getattr(operations, name)
    if each is not operations.api:
        assert each.__module__ == "nats_consumer.operations"
