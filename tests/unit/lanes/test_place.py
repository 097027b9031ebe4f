"""The place where a thread is, in words."""

import threading
from pathlib import Path

import pytest

from nats_consumer.lanes.place import place_of


def test_a_place_is_told_though_the_working_directory_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "release-1"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert "in test_a_place_is_told" in place_of(threading.get_ident())
