"""`make wheels`: which library of the system the wheel is linked with."""

import importlib
import platform
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "make"))
    return importlib.import_module("wheels")


def compiler(folder: Path, name: str, answer: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho {answer}\n")
    program.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that programs are looked for in."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return tmp_path


@pytest.mark.parametrize("target", ["", "x86_64-unknown-linux-gnu"])
def test_a_wheel_for_this_processor_has_the_unwinder_of_its_compiler(
    wheels: Any, programs: Path, target: str
) -> None:
    compiler(programs, "cc", "/lib/libgcc_s.so.1")
    assert wheels._shared_unwinder(target) == "-Clink-arg=/lib/libgcc_s.so.1"


def test_a_wheel_for_another_processor_has_the_unwinder_of_that_processors_compiler(
    wheels: Any, programs: Path
) -> None:
    compiler(programs, "cc", "/lib/libgcc_s.so.1")
    compiler(programs, "aarch64-linux-gnu-gcc", "/aarch64/libgcc_s.so.1")
    flag = wheels._shared_unwinder("aarch64-unknown-linux-gnu")
    assert flag == "-Clink-arg=/aarch64/libgcc_s.so.1"


def test_a_missing_cross_compiler_is_named(wheels: Any, programs: Path) -> None:
    compiler(programs, "cc", "/lib/libgcc_s.so.1")
    with pytest.raises(SystemExit, match="aarch64-linux-gnu-gcc was not found"):
        wheels._shared_unwinder("aarch64-unknown-linux-gnu")


def test_a_compiler_without_the_library_is_named(wheels: Any, programs: Path) -> None:
    compiler(programs, "cc", "libgcc_s.so.1")
    with pytest.raises(SystemExit, match=r"cc has no libgcc_s\.so\.1"):
        wheels._shared_unwinder("")
