"""Exceptions of the package. A class's docstring is the default message.

Each derives from the name that nats-py has for it (`errors`, `js.errors`), where there is one."""
# ruff: noqa: N818 - named for what happened, as in "except StreamNotFound"

from inspect import cleandoc
from typing import Any, Self

from django.core.exceptions import ImproperlyConfigured

from . import errors
from .api import PubAck
from .js import errors as js_errors


class NatsConsumerError(errors.Error):
    """Something went wrong in nats_consumer. Read the cause above this line."""

    # By identity: nats-py's APIError compares its fields, so it could not be put into a set.
    __eq__ = Exception.__eq__
    __hash__ = Exception.__hash__

    def __init__(self, *args: object) -> None:
        # Not super(): some classes of nats-py take other arguments.
        Exception.__init__(self, *(args or (cleandoc(type(self).__doc__ or ""),)))

    def __str__(self) -> str:
        # KeyError and OSError, which some subclasses also are, would print their own way.
        return str(self.args[0]) if len(self.args) == 1 else str(self.args)


# The name in the earlier packages.
DjangoNatsError = NatsConsumerError


class ConfigurationError(NatsConsumerError, ImproperlyConfigured):
    """A setting or a consumer attribute is wrong. Run `manage.py check` to see which."""


class OutboxError(NatsConsumerError):
    """An outbox row cannot be written as it was asked for."""


class InvalidCallback(ConfigurationError, errors.InvalidCallbackTypeError):
    """A callback must be a coroutine function: `async def`."""


class Unreachable(NatsConsumerError, ConnectionError):
    """No NATS server answered, or the connection is closed.

    Check NATS_CONSUMER["connect_args"]["servers"] and that the server is running."""


class NoServers(Unreachable, errors.NoServersError):
    """No NATS server answered.

    Check NATS_CONSUMER["connect_args"]["servers"] and that the server is running."""


class Disconnected(Unreachable, errors.ConnectionReconnectingError):
    """The connection is lost and is being restored. Try again then."""


class ConnectionClosed(Unreachable, errors.ConnectionClosedError):
    """The connection is closed for good, by close() or because it gave up reconnecting.

    Open another one, or raise max_reconnect_attempts."""


class ConnectionDraining(Unreachable, errors.ConnectionDrainingError):
    """The connection is closing, so nothing new can be sent. Open another one."""


class Denied(Unreachable, errors.AuthorizationError, errors.NoServersError):
    """The server refused the credentials or a permission.

    Check the user, token or credentials in NATS_CONSUMER["connect_args"], or allow what the message
    names in the user's permissions."""


class RequestTimeout(NatsConsumerError, errors.TimeoutError):
    """The answer did not come in time. Check that the server is reachable, or wait longer."""


class FlushTimeout(RequestTimeout, errors.FlushTimeoutError):
    """The server did not confirm in time that it has everything. Check that it is reachable."""


class FetchTimeout(RequestTimeout, js_errors.FetchTimeoutError):
    """The consumer had no message in time. Fetch again, or wait longer."""


class NoResponders(NatsConsumerError, errors.NoRespondersError):
    """No service answers requests on this subject. Start it, or correct the subject."""


class SubscriptionEnded(NatsConsumerError, errors.BadSubscriptionError):
    """The subscription has ended. Subscribe again."""


class SlowConsumer(NatsConsumerError, errors.SlowConsumerError):
    """A subscription is full, and new messages were dropped.

    Take them faster, or raise pending_msgs_limit and pending_bytes_limit."""

    subject: str = ""


class StreamError(NatsConsumerError, js_errors.Error):
    """The server refused an operation on a stream or one of its consumers."""

    code: int | None = None
    err_code: int | None = None
    description: str | None = None
    stream: str | None = None
    seq: int | None = None


class StreamNotFound(StreamError, js_errors.NotFoundError):
    """The stream does not exist.

    Create it: return operations.CreateStream(...) from setup() and run with --setup."""

    code, err_code, description = 404, 10059, "stream not found"


class StreamMismatch(StreamError):
    """The stream or durable on the server differs from the declared one in a way that cannot be
    changed in place. Use another durable_name, or delete the old one by hand."""


class NotPossible(StreamError):
    """The state of the durable or the version of the server does not allow this; the message says
    what does."""


class SubjectsOverlap(StreamError, js_errors.BadRequestError):
    """Another stream already has some of these subjects.

    Give each subject to one stream only, or delete the other stream."""

    code, err_code, description = 400, 10065, "subjects overlap with an existing stream"


class ConsumerGone(StreamError, js_errors.NotFoundError):
    """The durable does not exist, or was deleted on the server while it was in use.

    Start the consumer again, or create the durable."""

    code, err_code, description = 404, 10014, "consumer not found"


class ApiError(StreamError, js_errors.APIError):
    """The JetStream API answered with an error: `code` is like an HTTP status, `err_code` the
    server's own number, `description` what it means.

    Made with the code 400, 404, 500 or 503 it is a BadRequest, NotFound, ServerFailed or
    ServiceUnavailable."""

    code: int
    err_code: int
    description: str

    def __new__(cls, code: int, *args: Any) -> Self:
        kind = _BY_CODE.get(code, cls) if cls is ApiError else cls
        return super().__new__(kind, code, *args)  # type: ignore[return-value]

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(code, err_code, description)
        self.code = code
        self.err_code = err_code
        self.description = description

    def __str__(self) -> str:
        return self.description


class BadRequest(ApiError, js_errors.BadRequestError):
    """The request is wrong: `description` says what."""


class NotFound(ApiError, js_errors.NotFoundError):
    """The requested item, such as a message, does not exist."""


class ServerFailed(ApiError, js_errors.ServerError):
    """The server failed to do this; see its log."""


class ServiceUnavailable(ApiError, js_errors.ServiceUnavailableError):
    """JetStream is not available. Enable it, or wait until the cluster has a leader."""


_BY_CODE = {400: BadRequest, 404: NotFound, 500: ServerFailed, 503: ServiceUnavailable}


class PublishError(NatsConsumerError):
    """The message could not be published."""


class NotStored(PublishError, ApiError):
    """The stream refused the message: `description` says why, such as that it is full.

    With the code 400 or 503 it is also a BadRequest or ServiceUnavailable."""

    def __new__(cls, code: int, *args: Any) -> Self:
        kind = _NOT_STORED_BY_CODE.get(code, cls) if cls is NotStored else cls
        return super().__new__(kind, code, *args)  # type: ignore[return-value]


class MessageRefused(NotStored, BadRequest):
    """The stream does not take this message, whatever its room; `description` says why."""


class StreamFull(NotStored, ServiceUnavailable):
    """The stream has no room, or no leader; `description` says which. Try again later."""


_NOT_STORED_BY_CODE = {400: MessageRefused, 503: StreamFull}


class NotAllStored(PublishError, ExceptionGroup[Exception]):
    """Some of many messages were not stored.

    `failed` has their errors by their numbers, counted from 0; `stored` has the confirmations of
    the others."""

    failed: dict[int, Exception]
    stored: dict[int, PubAck]

    def __new__(cls, failed: dict[int, Exception], stored: dict[int, PubAck]) -> Self:
        count = len(failed) + len(stored)
        text = f"{len(failed)} of {count} messages were not stored"
        return super().__new__(cls, text, list(failed.values()))

    def __init__(self, failed: dict[int, Exception], stored: dict[int, PubAck]) -> None:
        super().__init__(failed, stored)
        self.failed = failed
        self.stored = stored

    __str__ = ExceptionGroup.__str__


class PublishTimeout(PublishError, errors.TimeoutError):
    """The stream did not confirm the message in time: it may or may not be stored.

    Publish it again with the same Nats-Msg-Id header, and it is stored only once."""


class NoStreamResponse(PublishError, js_errors.NoStreamResponseError):
    """No stream takes this subject, so the message was not stored.

    Create a stream with the subject, or correct the subject."""


class InvalidMessage(PublishError, errors.BadSubjectError, errors.BadHeaderError, ValueError):
    """The subject or a header cannot be sent as it is: a subject to publish to has no wildcards,
    spaces or empty tokens, a header is one line with a name of visible ASCII."""


class Unserializable(InvalidMessage, TypeError):
    """The data cannot be written as JSON. Publish what Django's encoder knows, or bytes."""


class TooManyUnconfirmed(PublishError, js_errors.TooManyStalledMsgsError):
    """The maximum number of unconfirmed messages is reached.

    Wait for some confirmations, or raise publish_async_max_pending."""


class PayloadTooLarge(PublishError, errors.MaxPayloadError):
    """The message is larger than the server's max_payload. Send a reference to the data instead."""


class MessageError(NatsConsumerError):
    """The message does not allow this."""


class InvalidPayload(MessageError, ValueError):
    """The payload, or a token of the subject, cannot be decoded as the handler declares it.

    Raised before a handler that declares a type. No retry can help: `invalid_ack_behavior` of the
    consumer decides at the first attempt."""


class MessageAlreadySettled(MessageError, errors.MsgAlreadyAckdError):
    """The message is settled already: ack, nak and term work once for each delivery."""


class SettledTooEarly(MessageError):
    """An idempotent handler cannot settle its message: its work is committed after it returned.

    Return or raise an outcome instead: Ack, Retry, DeadLetter or Drop."""


class NotJetStreamMessage(MessageError, errors.NotJSMessageError):
    """The message did not come from a stream, so there is nothing to settle."""


class NotReplayable(MessageError):
    """The dead letter cannot be published again: its payload is gone, or another program
    stored it.

    Look at it with `manage.py nats_dlq show`, then purge it."""


class WorkerError(NatsConsumerError):
    """The worker could not go on."""


class ForkedProcess(WorkerError):
    """This connection, or message, is of the process before it forked. Open a new connection in the
    child, and settle messages in the parent."""


class ConsumerNotFound(WorkerError, KeyError):
    """No consumer has this name. Consumers are the classes in the `consumers` modules of
    INSTALLED_APPS that have a stream_name."""


class EngineBug(NatsConsumerError):
    """The Rust engine met a state that should be impossible. Please report it with this text."""
