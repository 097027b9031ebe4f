"""Programs that do not stop what they run, fifty times each: some once ended by SIGABRT."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.live.support.project import Project
from tests.live.test_exit import BEGIN, PROGRAMS
from tests.servers import NatsServer

ROUNDS = 50
AT_ONCE = 5


@pytest.fixture
def project(tmp_path: Path, nats_server: NatsServer) -> Iterator[Project]:
    """A project without consumers of its own."""
    project = Project(tmp_path / "project", nats_server.url, "")
    yield project
    project.end()


@pytest.mark.parametrize(
    "what", ["leaves a consumer running", "leaves a consumer of threads running"]
)
def test_programs_that_leave_a_consumer_running_never_crash_at_their_end(
    project: Project, fresh: Callable[[str], str], what: str
) -> None:
    text = dedent(BEGIN) + dedent(PROGRAMS[what])
    project.write("program.py", text.replace("{stream}", fresh("shop")))
    codes: Counter[int] = Counter()
    for _ in range(ROUNDS // AT_ONCE):
        programs = [project.run("-X", "faulthandler", "program.py") for _ in range(AT_ONCE)]
        for program in programs:
            codes[program.finish(timeout=60)] += 1
            assert "panicked" not in program.output
            assert "Fatal" not in program.output
    assert codes == {0: ROUNDS}
