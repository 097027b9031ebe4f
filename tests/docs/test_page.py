"""A page that is wrong is found out: these pages are."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nats_consumer.exceptions import NoStreamResponse
from tests.docs.support.blocks import blocks
from tests.docs.support.console import commands, problem
from tests.docs.support.page import Page, PageRun
from tests.servers import NatsServer

CONSUMER = """
```python
# shop/consumers.py
from nats_consumer import JetstreamPullConsumer, operations


class Orders(JetstreamPullConsumer):
    stream_name = "orders"
    filter_subject = "orders.{event}"

    def setup(self):
        return operations.CreateStream(name="orders", subjects=["orders.created"])

    def handle_message(self, message):
        {body}
```
"""

Read = Callable[[str], Path]


@pytest.fixture
def page(tmp_path: Path) -> Read:
    """`page("...")` is the path of a page with this text."""

    def write(text: str) -> Path:
        path = tmp_path / "page.md"
        path.write_text(text)
        return path

    return write


def run(page: Path, server: NatsServer) -> None:
    run = PageRun(Page(page), page.parent / "project", server)
    try:
        run.run()
    finally:
        run.end()


def test_a_page_that_is_right_runs(page: Read, own_server: NatsServer) -> None:
    run(page(CONSUMER.format(event="created", body="print(message.data)")), own_server)


def test_a_handler_that_fails_is_found(page: Read, own_server: NatsServer) -> None:
    with pytest.raises(AssertionError, match="NameError"):
        run(page(CONSUMER.format(event="created", body="undefined")), own_server)


def test_a_handler_may_fail_where_the_page_says_so(page: Read, own_server: NatsServer) -> None:
    text = CONSUMER.format(event="created", body="undefined")
    run(page("<!-- handlers fail on purpose -->\n" + text), own_server)


def test_a_snippet_that_fails_is_found_at_its_line(page: Read, own_server: NatsServer) -> None:
    text = "\n\n```python\nimport nats_consumer\nnats_consumer.nothing\n```\n"
    with pytest.raises(AssertionError, match=r'page\.md", line 5'):
        run(page(text), own_server)


def test_a_hidden_test_that_fails_is_found(page: Read, own_server: NatsServer) -> None:
    with pytest.raises(AssertionError, match="it is not so"):
        run(page('<!-- test: assert False, "it is not so" -->\n'), own_server)


def test_a_filter_that_no_stream_has_is_found(page: Read, own_server: NatsServer) -> None:
    with pytest.raises(NoStreamResponse):
        run(page(CONSUMER.format(event="deleted", body="print(message)")), own_server)


def test_a_block_that_is_not_run_keeps_its_reason(page: Read) -> None:
    path = page(
        "<!-- not run: it needs a cluster -->\n\n```python\n1 / 0\n```\n\n```python\n1\n```\n"
    )
    assert [block.not_run for block in blocks(path)] == ["it needs a cluster", None]
    assert [text.strip() for _, text in Page(path).snippets] == ["1"]


def test_a_block_may_hold_several_files(page: Read) -> None:
    path = page("```python\n# shop/a.py\nA = 1\n\n# shop/b.py\nB = 2\n```\n")
    files = {name: text.strip() for name, text in Page(path).files.items()}
    assert files == {"shop/a.py": "# shop/a.py\nA = 1", "shop/b.py": "# shop/b.py\nB = 2"}


@pytest.mark.parametrize(
    "command",
    [
        "python manage.py nats_consumer OrderConsumer --setup",
        "python manage.py check --tag nats_consumer  # a comment",
        "pip install 'django-nats-consumer[uvloop]'",
        "make test",
        "nats-server -js -p 4222",
        "DEBUG=1 python manage.py migrate",
    ],
)
def test_a_command_that_exists_is_fine(command: str) -> None:
    assert [problem(words) for words in commands(f"$ {command}")] == [None]


@pytest.mark.parametrize(
    "command",
    [
        "python manage.py nats_consumer --no-such-option",
        "python manage.py nats_consumer NoSuchConsumer",
        "python manage.py no_such_command",
        "python no_such_file.py",
        "pip install django-nats-consumer[nothing]",
        "make nothing",
        "nats-server --nothing",
        "wget somewhere",
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    [found] = [problem(words) for words in commands(f"$ {command}")]
    assert found
