"""A dependency that needs a newer Rust than the engine promises is named."""

import importlib
from pathlib import Path
from typing import Any

import pytest

MAKE = Path(__file__).parents[3] / "make"


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(MAKE))
    return importlib.import_module("oldest_rust").judge


def metadata(**dependencies: tuple[str | None, str | None]) -> dict[str, Any]:
    """Return cargo's metadata of an engine with these dependencies, each with kind and Rust."""
    engine = {"id": "engine", "name": "nats-consumer", "version": "1", "rust_version": "1.89"}
    below = [
        {"id": name, "name": name, "version": "1", "rust_version": rust}
        for name, (_, rust) in dependencies.items()
    ]
    deps = [
        {"pkg": name, "dep_kinds": [{"kind": kind}]} for name, (kind, _) in dependencies.items()
    ]
    nodes = [{"id": "engine", "deps": deps}, *({"id": name, "deps": []} for name in dependencies)]
    return {"packages": [engine, *below], "resolve": {"nodes": nodes}}


@pytest.mark.parametrize("rust", ["1.90", "1.89.1", "2.0"])
def test_a_dependency_that_needs_a_newer_rust_is_named(
    judge: Any, capsys: pytest.CaptureFixture[str], rust: str
) -> None:
    assert judge(metadata(new=(None, rust), old=(None, "1.56"))) == 1
    assert f"new 1 needs Rust {rust}\n1 of 2" in capsys.readouterr().out


def test_what_only_tests_need_may_be_newer(judge: Any) -> None:
    assert (
        judge(metadata(criterion=("dev", "1.99"), same=("build", "1.89"), silent=(None, None))) == 0
    )


def test_an_engine_without_dependencies_was_not_read(judge: Any) -> None:
    assert judge(metadata()) == 1
