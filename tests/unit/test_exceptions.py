"""The taxonomy: one root, and messages that name the remedy."""

import pickle

import pytest
from django.core.exceptions import ImproperlyConfigured

from nats_consumer import exceptions
from nats_consumer.exceptions import ApiError, ConsumerNotFound, NatsConsumerError

ALL = [
    each
    for each in vars(exceptions).values()
    if isinstance(each, type)
    and issubclass(each, Exception)
    and each.__module__ == exceptions.__name__
]
WITHOUT_ARGUMENTS = [each for each in ALL if not issubclass(each, ApiError | ExceptionGroup)]


@pytest.mark.parametrize("error", ALL)
def test_every_error_has_the_one_root(error: type[Exception]) -> None:
    assert issubclass(error, NatsConsumerError)


@pytest.mark.parametrize("error", WITHOUT_ARGUMENTS)
def test_the_docstring_is_the_message_of_last_resort(error: type[Exception]) -> None:
    first_line = (error.__doc__ or "").splitlines()[0]
    assert str(error()).startswith(first_line)


@pytest.mark.parametrize("error", WITHOUT_ARGUMENTS)
def test_a_message_is_printed_as_it_was_given(error: type[Exception]) -> None:
    assert str(error("it's gone")) == "it's gone"


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (exceptions.ConfigurationError, ImproperlyConfigured),
        (exceptions.Denied, ConnectionError),
        (exceptions.PublishTimeout, TimeoutError),
        (ConsumerNotFound, KeyError),
    ],
)
def test_an_error_is_caught_by_the_class_people_expect(
    error: type[Exception], builtin: type[Exception]
) -> None:
    with pytest.raises(builtin):
        raise error


def test_an_api_error_keeps_the_servers_numbers() -> None:
    error = ApiError(400, 10065, "subjects overlap")
    assert (error.code, error.err_code, error.description) == (400, 10065, "subjects overlap")
    assert str(error) == "subjects overlap"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, exceptions.BadRequest),
        (404, exceptions.NotFound),
        (500, exceptions.ServerFailed),
        (503, exceptions.ServiceUnavailable),
        (418, ApiError),
    ],
)
def test_an_api_error_is_of_the_kind_that_its_code_says(code: int, kind: type[ApiError]) -> None:
    assert type(ApiError(code, 1, "no")) is kind


def test_an_error_survives_the_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(ApiError(404, 10037, "no message found")))
    assert type(error) is exceptions.NotFound
    assert (error.code, error.err_code, error.description) == (404, 10037, "no message found")
