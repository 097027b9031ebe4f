"""The exception names of nats-py's `nats.errors`, to catch errors of this package by.

Where nats-py is installed they are its own classes, so that `except nats.errors.TimeoutError`
catches what is raised here; elsewhere they stand by themselves. What is raised are the classes of
`nats_consumer.exceptions`, which derive from these."""
# ruff: noqa: A001, N818 - the names are nats-py's

import builtins


class Error(Exception):
    """The root of all."""


class TimeoutError(Error, builtins.TimeoutError):
    """Something did not come in time."""


class FlushTimeoutError(TimeoutError):
    """The server did not confirm a flush in time."""


class DrainTimeoutError(TimeoutError):
    """Draining took too long."""


class NoRespondersError(Error):
    """No service answers requests on the subject."""


class NoServersError(Error):
    """No server answered."""


class AuthorizationError(Error):
    """The server refused the credentials or a permission."""


class ConnectionClosedError(Error):
    """The connection is closed for good."""


class ConnectionDrainingError(Error):
    """The connection is about to close."""


class ConnectionReconnectingError(Error):
    """The connection is lost for the moment."""


class StaleConnectionError(Error):
    """The server went silent."""


class UnexpectedEOF(StaleConnectionError):
    """The server closed the connection."""


class OutboundBufferLimitError(Error):
    """Too much waits to be sent."""


class SlowConsumerError(Error):
    """A subscription overflowed, and messages were dropped."""


class BadSubscriptionError(Error):
    """The subscription has ended."""


class BadSubjectError(Error):
    """The subject cannot be used."""


class BadHeaderError(Error):
    """The header cannot be sent."""


class BadTimeoutError(Error):
    """The timeout cannot be used."""


class MaxPayloadError(Error):
    """The message is too large."""


class InvalidCallbackTypeError(Error):
    """A callback is not a coroutine function."""


class InvalidUserCredentialsError(Error):
    """The credentials file cannot be used."""


class SecureConnRequiredError(Error):
    """The server wants TLS."""


class SecureConnWantedError(Error):
    """The server has no TLS."""


class SecureConnFailedError(Error):
    """TLS could not be set up."""


class ProtocolError(Error):
    """The server sent something that is not the NATS protocol."""


class JsonParseError(Error):
    """The server sent something that is not JSON."""


class NotJSMessageError(Error):
    """The message did not come from a stream."""


class MsgAlreadyAckdError(Error):
    """The message is settled already."""


def replace_classes(names: dict[str, object], module: object) -> None:
    """Replace the classes among `names` by those that the module has under the same names."""
    for name, own in list(names.items()):
        if isinstance(own, type):
            names[name] = getattr(module, name, own)


try:
    from nats import errors as _nats_py
except ImportError:
    pass
else:
    replace_classes(globals(), _nats_py)
