"""What NATS_CONSUMER says."""

from pathlib import Path

import pytest
from pytest_django import Settings

from nats_consumer import settings as ours
from nats_consumer.exceptions import ConfigurationError


def test_a_project_without_the_setting_gets_the_defaults(settings: Settings) -> None:
    del settings.NATS_CONSUMER
    assert ours.connect_args() == {}
    assert ours.default_durable_name() is None
    assert ours.event_loop_policy() is None
    assert ours.shutdown_timeout() == 25


@pytest.mark.parametrize("key", ["default_durable_name", "DEFAULT_DURABLE_NAME"])
def test_the_default_durable_is_read_in_either_spelling(settings: Settings, key: str) -> None:
    settings.NATS_CONSUMER = {key: "my-app"}
    assert ours.default_durable_name() == "my-app"


def test_an_unknown_key_is_refused_with_the_one_that_was_meant(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"conect_args": {}}
    with pytest.raises(ConfigurationError, match=r"'conect_args'.*Did you mean 'connect_args'"):
        ours.check_keys(())


def test_the_setting_must_be_a_dict(settings: Settings) -> None:
    settings.NATS_CONSUMER = ["nats://localhost:4222"]
    with pytest.raises(ConfigurationError, match="must be a dict, not list"):
        ours.connect_args()


@pytest.mark.parametrize("value", ["25", -1, None, True, float("nan"), float("inf")])
def test_a_shutdown_timeout_that_is_no_number_is_refused(settings: Settings, value: object) -> None:
    settings.NATS_CONSUMER = {"shutdown_timeout": value}
    with pytest.raises(ConfigurationError, match="shutdown_timeout"):
        ours.shutdown_timeout()


def test_manage_durables_is_true_or_false(settings: Settings) -> None:
    settings.NATS_CONSUMER = {}
    assert ours.manage_durables()
    settings.NATS_CONSUMER = {"manage_durables": "no"}
    with pytest.raises(ConfigurationError, match="must be True or False, not 'no'"):
        ours.manage_durables()


def test_the_embedded_store_is_beside_the_project_unless_told_otherwise(
    settings: Settings, tmp_path: Path
) -> None:
    settings.BASE_DIR = tmp_path
    settings.NATS_CONSUMER = {}
    assert ours.embedded_store() == tmp_path / ".nats"
    settings.NATS_CONSUMER = {"embedded_store": "/srv/nats"}
    assert ours.embedded_store() == Path("/srv/nats")
