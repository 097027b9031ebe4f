"""The exception names of nats-py, with it and without it."""

import subprocess
import sys

import nats.errors
import nats.js.errors
import pytest

from nats_consumer import errors, exceptions
from nats_consumer.exceptions import ApiError
from nats_consumer.js import api
from nats_consumer.js import errors as js_errors

CAUGHT_BY = [
    (exceptions.NatsConsumerError(), nats.errors.Error),
    (exceptions.RequestTimeout(), nats.errors.TimeoutError),
    (exceptions.FlushTimeout(), nats.errors.FlushTimeoutError),
    (exceptions.PublishTimeout(), nats.errors.TimeoutError),
    (exceptions.NoServers(), nats.errors.NoServersError),
    (exceptions.Denied(), nats.errors.AuthorizationError),
    (exceptions.ConnectionClosed(), nats.errors.ConnectionClosedError),
    (exceptions.ConnectionDraining(), nats.errors.ConnectionDrainingError),
    (exceptions.Disconnected(), nats.errors.ConnectionReconnectingError),
    (exceptions.NoResponders(), nats.errors.NoRespondersError),
    (exceptions.SubscriptionEnded(), nats.errors.BadSubscriptionError),
    (exceptions.SlowConsumer(), nats.errors.SlowConsumerError),
    (exceptions.InvalidCallback(), nats.errors.InvalidCallbackTypeError),
    (exceptions.InvalidMessage(), nats.errors.BadSubjectError),
    (exceptions.InvalidMessage(), nats.errors.BadHeaderError),
    (exceptions.PayloadTooLarge(), nats.errors.MaxPayloadError),
    (exceptions.MessageAlreadySettled(), nats.errors.MsgAlreadyAckdError),
    (exceptions.NotJetStreamMessage(), nats.errors.NotJSMessageError),
    (exceptions.StreamError(), nats.js.errors.Error),
    (exceptions.StreamNotFound(), nats.js.errors.NotFoundError),
    (exceptions.ConsumerGone(), nats.js.errors.NotFoundError),
    (exceptions.SubjectsOverlap(), nats.js.errors.BadRequestError),
    (exceptions.NoStreamResponse(), nats.js.errors.NoStreamResponseError),
    (exceptions.FetchTimeout(), nats.js.errors.FetchTimeoutError),
    (ApiError(400, 10003, "bad request"), nats.js.errors.BadRequestError),
    (ApiError(404, 10037, "no message found"), nats.js.errors.NotFoundError),
    (ApiError(500, 10049, "failed"), nats.js.errors.ServerError),
    (ApiError(503, 10008, "unavailable"), nats.js.errors.ServiceUnavailableError),
    (ApiError(418, 1, "tea"), nats.js.errors.APIError),
]


@pytest.mark.parametrize(
    ("error", "kind"), CAUGHT_BY, ids=lambda value: getattr(value, "__name__", "")
)
def test_nats_pys_own_classes_catch_ours(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        raise error


@pytest.mark.parametrize(
    ("error", "kind"), CAUGHT_BY, ids=lambda value: getattr(value, "__name__", "")
)
def test_an_error_keeps_its_own_words(error: Exception, kind: type[Exception]) -> None:
    assert not str(error).startswith("nats:")
    assert str(error) == str(error.args[-1])


@pytest.mark.parametrize(
    ("ours", "theirs"), [(errors, nats.errors), (js_errors, nats.js.errors)], ids=["core", "js"]
)
def test_every_name_is_nats_pys_own_class_where_it_is_installed(
    ours: object, theirs: object
) -> None:
    names = {name: each for name, each in vars(ours).items() if isinstance(each, type)}
    assert names == {name: getattr(theirs, name) for name in names}


def test_an_api_error_has_nats_pys_attributes() -> None:
    error = exceptions.StreamNotFound("Stream 'orders' does not exist.")
    assert (error.code, error.err_code, error.description) == (404, 10059, "stream not found")
    assert error.stream is None
    assert error.seq is None


def test_errors_can_be_put_into_a_set() -> None:
    assert len({exceptions.StreamNotFound(), ApiError(404, 10037, "no message found")}) == 2


def test_the_structs_have_nats_pys_place_too() -> None:
    assert api.StreamConfig(name="orders").as_dict() == {"name": "orders"}


WITHOUT_NATS_PY = """
import builtins, sys
sys.modules["nats"] = None  # as if it were not installed
from nats_consumer import errors, exceptions
from nats_consumer.js import errors as js_errors
assert errors.TimeoutError.__module__ == "nats_consumer.errors"
for error, kind in [
    (exceptions.RequestTimeout(), errors.TimeoutError),
    (exceptions.RequestTimeout(), builtins.TimeoutError),
    (exceptions.StreamNotFound("gone"), js_errors.NotFoundError),
    (exceptions.ApiError(503, 10008, "later"), js_errors.ServiceUnavailableError),
    (exceptions.MessageAlreadySettled(), errors.MsgAlreadyAckdError),
    (exceptions.NoStreamResponse(), errors.Error),
]:
    try:
        raise error
    except kind as caught:
        print(type(caught).__name__, str(caught).splitlines()[0])
from nats_consumer.testing import FakeMessage
message = FakeMessage(b"", subject="orders.created")
assert message.__class__ is FakeMessage
assert "nats.aio.msg" not in sys.modules
"""


def test_without_nats_py_the_names_stand_by_themselves() -> None:
    output = subprocess.run(
        [sys.executable, "-c", WITHOUT_NATS_PY], check=True, capture_output=True, text=True
    ).stdout
    assert len(output.splitlines()) == 6
    assert "StreamNotFound gone" in output
    assert "ServiceUnavailable later" in output
