"""Every error of the package. A class's docstring is its message when it is raised without one."""
# ruff: noqa: N818 - named for what happened, as in "except StreamNotFound"

from inspect import cleandoc

from django.core.exceptions import ImproperlyConfigured


class NatsConsumerError(Exception):
    """Something went wrong in nats_consumer. Read the cause above this line."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or (cleandoc(type(self).__doc__ or ""),)))

    def __str__(self) -> str:
        # KeyError and OSError, which some subclasses also are, would print their own way.
        return str(self.args[0]) if len(self.args) == 1 else str(self.args)


class ConfigurationError(NatsConsumerError, ImproperlyConfigured):
    """A setting or a consumer attribute is wrong. Run `manage.py check` to see which."""


class Unreachable(NatsConsumerError, ConnectionError):
    """No NATS server answered, or the connection is closed.

    Check NATS_CONSUMER["connect_args"]["servers"] and that the server is running."""


class Denied(Unreachable):
    """The server refused the credentials or a permission.

    Check the user, token or credentials in NATS_CONSUMER["connect_args"]."""


class RequestTimeout(NatsConsumerError, TimeoutError):
    """The answer did not come in time. Check that the server is reachable, or wait longer."""


class StreamError(NatsConsumerError):
    """The server refused an operation on a stream or one of its consumers."""


class StreamNotFound(StreamError):
    """The stream does not exist.

    Create it: return operations.CreateStream(...) from setup() and run with --setup."""


class StreamMismatch(StreamError):
    """The stream or durable on the server differs from the declared one in a way that cannot be
    changed in place. Use another durable_name, or delete the old one by hand."""


class SubjectsOverlap(StreamError):
    """Another stream already has some of these subjects.

    Give each subject to one stream only, or delete the other stream."""


class ConsumerGone(StreamError):
    """The durable was deleted on the server while it was in use. Start the consumer again."""


class ApiError(StreamError):
    """The JetStream API answered with an error: `code` is like an HTTP status, `err_code` the
    server's own number, `description` what it means."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(code, err_code, description)
        self.code = code
        self.err_code = err_code
        self.description = description

    def __str__(self) -> str:
        return self.description


class PublishError(NatsConsumerError):
    """The message could not be published."""


class PublishTimeout(PublishError, TimeoutError):
    """The stream did not confirm the message in time: it may or may not be stored.

    Publish it again with the same Nats-Msg-Id header, and it is stored only once."""


class NoStreamResponse(PublishError):
    """No stream takes this subject, so the message was not stored.

    Create a stream with the subject, or correct the subject."""


class InvalidMessage(PublishError, ValueError):
    """The subject or a header cannot be sent as it is: a subject to publish to has no wildcards,
    spaces or empty tokens, a header is one line with a name of visible ASCII."""


class PayloadTooLarge(PublishError):
    """The message is larger than the server's max_payload. Send a reference to the data instead."""


class MessageError(NatsConsumerError):
    """The message does not allow this."""


class MessageAlreadySettled(MessageError):
    """The message is settled already: ack, nak and term work once for each delivery."""


class NotJetStreamMessage(MessageError):
    """The message did not come from a stream, so there is nothing to settle."""


class WorkerError(NatsConsumerError):
    """The worker could not go on."""


class ForkedProcess(WorkerError):
    """This connection was opened before the process forked. Open a new one in the child."""


class ConsumerNotFound(WorkerError, KeyError):
    """No consumer has this name. Consumers are the classes in the `consumers` modules of
    INSTALLED_APPS that have a stream_name."""


class EngineBug(NatsConsumerError):
    """The Rust engine met a state that should be impossible. Please report it with this text."""
