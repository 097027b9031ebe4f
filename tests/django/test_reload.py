"""--reload: which files it watches."""

from pathlib import Path

import pytest
from pytest_django import Settings

from nats_consumer.run.reload import is_source, source_folders

ROOT = Path(__file__).parents[2]


def test_the_project_and_its_apps_are_watched_and_each_folder_once() -> None:
    # BASE_DIR of the test project; its apps lie inside, nats_consumer itself beside it.
    folders = source_folders()
    assert ROOT / "tests/project" in folders
    assert not any(other in folder.parents for folder in folders for other in folders)
    assert not any("site-packages" in folder.parts for folder in folders)


def test_without_a_base_dir_it_is_the_working_directory(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del settings.BASE_DIR
    monkeypatch.chdir(tmp_path)
    assert tmp_path.resolve() in source_folders()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("manage.py", True),
        ("shop/consumers.py", True),
        ("shop/consumers.pyc", False),
        ("shop/orders.json", False),
        ("db.sqlite3-journal", False),
        (".nats/jetstream/module.py", False),
        (".venv/lib/module.py", False),
        ("lib/python3.11/site-packages/package/module.py", False),
        ("my_venv/lib/module.py", False),
    ],
)
def test_only_python_of_the_project_is_source(tmp_path: Path, path: str, expected: bool) -> None:
    (tmp_path / "my_venv").mkdir()
    (tmp_path / "my_venv/pyvenv.cfg").touch()
    assert is_source(str(tmp_path / path), [tmp_path]) is expected


def test_a_file_outside_is_no_source(tmp_path: Path) -> None:
    assert not is_source("/elsewhere/module.py", [tmp_path])
