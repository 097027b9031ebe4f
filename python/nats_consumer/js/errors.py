"""The exception names of nats-py's `nats.js.errors`; see `nats_consumer.errors`."""

from nats_consumer import errors


class Error(errors.Error):
    """The root of what concerns JetStream."""


class APIError(Error):
    """The JetStream API answered with an error: `code` is like an HTTP status, `err_code` the
    server's own number, `description` what it means."""


class BadRequestError(APIError):
    """The request is wrong: code 400."""


class NotFoundError(APIError):
    """The stream, consumer or message does not exist: code 404."""


class ServerError(APIError):
    """The server could not do it: code 500."""


class ServiceUnavailableError(APIError):
    """JetStream is not available now: code 503."""


class NoStreamResponseError(Error):
    """No stream takes the subject."""


class TooManyStalledMsgsError(Error):
    """Too many messages are published and not confirmed yet."""


class FetchTimeoutError(errors.TimeoutError):
    """The consumer had no message in time."""


class ConsumerSequenceMismatchError(Error):
    """Messages were lost on the way from a consumer."""


try:
    from nats.js import errors as _nats_py
except ImportError:
    pass
else:
    errors.replace_classes(globals(), _nats_py)
