"""Every code block of README.md and docs runs, or says why it cannot."""

from collections import Counter
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from django.conf import global_settings
from pytest_django import Settings

from nats_consumer.checks import check_settings
from tests.docs.support.blocks import Block, blocks, name_of, pages
from tests.docs.support.console import commands, problem
from tests.docs.support.page import Page, PageRun
from tests.servers import NatsServer

# How many blocks of each page are not run; each has a comment that says why.
NOT_RUN: dict[str, int] = {"docs/howto/celery.md": 2, "docs/howto/web-servers.md": 1}

ALL = [block for page in pages() for block in blocks(page)]
# make/try_install.py follows the Dockerfile.
LANGUAGES = {"python", "console", "ini", "text", "dockerfile"}
# Settings of Django that projects add and global_settings does not name.
OF_DJANGO = {"BASE_DIR", "ROOT_URLCONF", *vars(global_settings)}


def blocks_of(language: str) -> list[Any]:
    return [
        pytest.param(block, id=str(block))
        for block in ALL
        if block.language == language and not block.not_run
    ]


def settings_blocks() -> Iterator[Any]:
    for block in ALL:
        parts = block.parts() if block.language == "python" and not block.not_run else ()
        for name, text in parts:
            if name == "settings.py":
                yield pytest.param(block.page, text, id=str(block))


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_a_page_is_a_project_that_runs(page: Path, tmp_path: Path) -> None:
    found = Page(page)
    if not found.has_something_to_run:
        return  # words only, or settings, which the test below loads
    server = NatsServer(tmp_path / "server")
    server.folder.mkdir()
    server.start()
    run = PageRun(found, tmp_path / "project", server)
    try:
        run.run()
    finally:
        run.end()
        server.stop()


@pytest.mark.parametrize(("page", "text"), list(settings_blocks()))
def test_a_settings_block_loads_and_passes_the_check(
    page: str, text: str, settings: Settings
) -> None:
    names: dict[str, Any] = {"BASE_DIR": Path(__file__).parent}
    exec(compile(text, page, "exec"), names)
    given = {name: value for name, value in names.items() if name.isupper()}
    assert given.keys() <= OF_DJANGO | {"NATS_CONSUMER"}
    if "NATS_CONSUMER" in given:
        settings.NATS_CONSUMER = given["NATS_CONSUMER"]
        assert check_settings() == []


@pytest.mark.parametrize("block", blocks_of("console"))
def test_the_commands_of_a_console_block_exist(block: Block) -> None:
    words = list(commands(block.text))
    assert words, "a console block shows at least one command after '$ '"
    assert [found for each in words if (found := problem(each))] == []


@pytest.mark.parametrize("block", blocks_of("ini"))
def test_an_ini_block_can_be_read_and_starts_what_exists(block: Block) -> None:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string(block.text)
    for section in parser.sections():
        for key in ("ExecStart", "command"):
            if key in parser[section]:
                [words] = commands(f"$ {parser[section][key]}")
                assert problem(words) is None


def test_every_block_is_in_a_language_that_a_test_here_reads() -> None:
    assert [str(block) for block in ALL if block.language not in LANGUAGES] == []


def test_the_blocks_that_cannot_run_are_these_and_say_why() -> None:
    excused = [block for block in ALL if block.not_run is not None]
    assert [str(block) for block in excused if not block.not_run] == []
    assert Counter(block.page for block in excused) == NOT_RUN
