"""Checks of the imports between the bridge's rooms in `make lint`."""

import importlib
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(CHECKOUT / "make"))
    return importlib.import_module("imports")


def test_an_import_is_found_however_it_is_written(rules: Any) -> None:
    source = (
        "use crate::host::lock;\nuse crate::{view::{View, reply}, options};\ncrate::tasks::go()"
    )
    assert set(rules.imports(source)) == {"host", "view", "options", "tasks"}


def test_a_comment_imports_nothing(rules: Any) -> None:
    assert list(rules.imports("/// See [`crate::tasks`].\nuse crate::host;")) == ["host"]


def test_rooms_that_import_each_other_are_named(rules: Any, tmp_path: Path) -> None:
    (tmp_path / "lib.rs").write_text("use crate::inbox;")
    (tmp_path / "inbox.rs").write_text("use crate::late::Late;")
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "mod.rs").write_text("use crate::late::watch;")
    (tmp_path / "late" / "watch.rs").write_text("use crate::inbox::Waiting;")
    assert sorted(set(rules.circle_in(rules.rooms(tmp_path)))) == ["inbox", "late"]


def test_the_bridge_has_no_circle(rules: Any) -> None:
    rooms = rules.rooms(CHECKOUT / "bridge/src")
    assert "host" in rooms["deliver"]
    assert rules.circle_in(rooms) == []
