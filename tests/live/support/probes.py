"""A worker as a process manager and Prometheus see it."""

import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from tests.command import Command
from tests.live.support.project import Project

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Answer(NamedTuple):
    status: int
    text: str
    kind: str


class Probes:
    """The probes of a worker that was started with `--http 127.0.0.1:0`, or at a port."""

    def __init__(self, worker: Command, url: str | None = None) -> None:
        line = worker.wait_for("Probes and metrics are served at") if url is None else f"{url}:"
        found = re.search(r"http://[^ ]+?:\d+", line)
        assert found, line
        self.url = found[0]

    def get(self, path: str, *, accept: str = "", method: str = "GET") -> Answer:
        request = urllib.request.Request(self.url + path, headers={"Accept": accept}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                kind = response.headers["Content-Type"]
                return Answer(response.status, response.read().decode(), kind)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode(), error.headers["Content-Type"])

    def is_ready(self) -> bool:
        return self.get("/readyz").status == 200

    def samples(self) -> "Samples":
        return Samples(self.get("/metrics").text)


def consuming(project: Project, *arguments: str) -> tuple[Command, Probes]:
    """A worker that has begun to consume, and its probes."""
    worker = project.consume(*arguments, "--http", "127.0.0.1:0")
    worker.wait_for("Orders: consuming")
    return worker, Probes(worker)


class Samples:
    """The samples of a text of metrics."""

    def __init__(self, text: str, *, is_openmetrics: bool = False) -> None:
        self._families = list(openmetrics(text) if is_openmetrics else prometheus(text))
        assert self._families

    def types(self) -> dict[str, str]:
        """The type of each family."""
        return {family.name: family.type for family in self._families}

    def series(self) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        """All series, by name and labels."""
        return {
            (sample.name, frozenset(sample.labels.items()))
            for family in self._families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples with this name and these labels; None if there are none."""
        name = name if name.startswith("process_") else f"nats_consumer_{name}"
        found = [
            sample.value
            for family in self._families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


def listening(pid: int) -> set[int]:
    """The TCP ports that the process listens at."""
    files = (Path(f"/proc/{pid}/fd")).iterdir()
    inodes = {
        found[1]
        for file in files
        if file.is_symlink() and (found := re.match(r"socket:\[(\d+)\]", str(file.readlink())))
    }
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports
