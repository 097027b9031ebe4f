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
    "nats_consumer.contrib.inbox": "idempotent",
    "nats_consumer.contrib.opentelemetry": "trace trace_publishing",
    "nats_consumer.contrib.outbox.lag": "lag",
    "nats_consumer.contrib.sentry": "continue_traces isolate",
    "nats_consumer.dead_letters": "Selection dead_letters",
    "nats_consumer.errors": (
        "AuthorizationError BadHeaderError BadSubjectError BadSubscriptionError "
        "BadTimeoutError ConnectionClosedError ConnectionDrainingError "
        "ConnectionReconnectingError DrainTimeoutError Error FlushTimeoutError "
        "InvalidCallbackTypeError InvalidUserCredentialsError JsonParseError MaxPayloadError "
        "MsgAlreadyAckdError NoRespondersError NoServersError NotJSMessageError "
        "OutboundBufferLimitError ProtocolError SecureConnFailedError SecureConnRequiredError "
        "SecureConnWantedError SlowConsumerError StaleConnectionError TimeoutError "
        "UnexpectedEOF"
    ),
    "nats_consumer.exceptions": (
        "ApiError BadRequest ConfigurationError ConnectionClosed ConnectionDraining "
        "ConsumerGone ConsumerNotFound Denied Disconnected DjangoNatsError EngineBug "
        "FetchTimeout FlushTimeout ForkedProcess InvalidCallback InvalidMessage "
        "InvalidPayload MessageAlreadySettled MessageError MessageRefused NatsConsumerError "
        "NoResponders NoServers NoStreamResponse NotAllStored NotFound NotJetStreamMessage "
        "NotPossible NotReplayable NotStored OutboxError PayloadTooLarge PublishError "
        "PublishTimeout RequestTimeout ServerFailed ServiceUnavailable SettledTooEarly "
        "SlowConsumer StreamError StreamFull StreamMismatch StreamNotFound SubjectsOverlap "
        "SubscriptionEnded TooManyUnconfirmed Unreachable Unserializable WorkerError"
    ),
    "nats_consumer.handler": "ConsumerHandler handle",
    "nats_consumer.js.api": "StorageType StreamConfig",
    "nats_consumer.js.errors": (
        "APIError BadRequestError ConsumerSequenceMismatchError Error FetchTimeoutError "
        "NoStreamResponseError NotFoundError ServerError ServiceUnavailableError "
        "TooManyStalledMsgsError"
    ),
    "nats_consumer.logs": "MessageFields current_message_is_known",
    "nats_consumer.message": "Message Metadata SequencePair",
    "nats_consumer.metrics": "text",
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
EXCEPTIONS = ("nats_consumer.errors", "nats_consumer.exceptions", "nats_consumer.js.errors")
# Each with the app that has it.
COMMANDS = {
    "nats_apply": "nats_consumer",
    "nats_asyncapi": "nats_consumer",
    "nats_consumer": "nats_consumer",
    "nats_delete_stream": "nats_consumer",
    "nats_dlq": "nats_consumer",
    "nats_durable": "nats_consumer",
    "nats_inbox": "nats_consumer.contrib.inbox",
    "nats_outbox": "nats_consumer.contrib.outbox",
    "nats_plan": "nats_consumer",
    "nats_status": "nats_consumer",
    "nats_update_stream": "nats_consumer",
}


@pytest.mark.parametrize("module", NAMES)
def test_what_users_import_is_found_where_the_documentation_says(module: str) -> None:
    names = NAMES[module].split()
    lines = "".join(f"from {module} import {name}\n" for name in names)
    exec(compile(lines, module, "exec"), {})  # as a project writes it


def test_the_names_that_the_package_exports_are_all_documented_ones() -> None:
    assert set(nats_consumer.__all__) <= set(NAMES["nats_consumer"].split())


@pytest.mark.parametrize("module", EXCEPTIONS)
def test_the_exceptions_of_a_module_are_all_documented_ones(module: str) -> None:
    found = vars(importlib.import_module(module)).items()
    names = {name for name, it in found if isinstance(it, type) and issubclass(it, Exception)}
    assert names - {"ImproperlyConfigured"} == set(NAMES[module].split())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_where_django_looks_for_it(command: str) -> None:
    module = importlib.import_module(f"{COMMANDS[command]}.management.commands.{command}")
    assert issubclass(module.Command, BaseCommand)


@pytest.mark.parametrize("name", operations.__all__)
def test_a_written_migration_imports_an_operation_by_its_public_name(name: str) -> None:
    each = getattr(operations, name)
    if each is not operations.api:
        assert each.__module__ == "nats_consumer.operations"
