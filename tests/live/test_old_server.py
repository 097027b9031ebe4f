"""A nats-server that is too old. `make servers` runs this with one."""

import re
import subprocess
from collections.abc import Callable

import pytest

from tests.live.support.project import Project
from tests.servers import NatsServer, binary

OLDEST = (2, 11)


def version() -> tuple[int, int]:
    """The version of the tests' nats-server."""
    shown = subprocess.check_output([binary(), "--version"], text=True)
    major, minor = re.search(r"v(\d+)\.(\d+)", shown).groups()
    return int(major), int(minor)


def test_a_worker_ends_at_once_and_names_a_server_that_is_too_old(
    make_project: Callable[..., Project], nats_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    if version() >= OLDEST:
        pytest.skip("needs a nats-server before 2.11: make servers runs this with 2.10")
    project = make_project(f"""
        from nats_consumer import JetstreamPullConsumer

        class Orders(JetstreamPullConsumer):
            stream_name = {fresh("orders")!r}
            filter_subject = ">"

            async def handle_message(self, message):
                pass
        """)
    worker = project.consume()
    assert worker.finish(timeout=30) == 1
    assert "consumers need 2.11 or later" in worker.output
