"""The streams that contestants consume: each backlog is stored once and kept for all rounds."""

import json
import subprocess

from workloads import Workload
from workloads.lineup import Contestant

from harness.environments import environment
from harness.server import Server

_FILL_SECONDS = 120
_SLOW = "Beside"
# As many as slow handlers can take in a minute: a thousand a second.
_SLOW_MESSAGES = 60_000


class Streams:
    """The streams of one workload."""

    def __init__(self, server: Server, workload: Workload, scale: float) -> None:
        """`scale` is a factor for the messages."""
        self._server = server
        self._workload = workload
        self._scale = scale
        self._names: set[str] = set()

    def messages(self, contestant: Contestant) -> int:
        """How many messages a contestant gets."""
        return round(self._workload.messages * contestant.share * self._scale)

    def subjects(self, contestant: Contestant, stream: str) -> list[str]:
        """The subjects that its messages have in turn."""
        count = contestant.subjects or self._workload.subjects
        return [f"{stream}.s{number}.event" for number in range(count)]

    def stream(self, contestant: Contestant) -> str:
        """Its stream: full for a backlog, else empty."""
        messages = self.messages(contestant)
        subjects = contestant.subjects or self._workload.subjects
        form = "taskiq" if contestant.taskiq else str(subjects)
        # No separator: the names of a ConsumerHandler's methods begin behind the first one.
        stream = f"{self._workload.name}{messages}x{form}"
        if stream in self._names:
            if self._workload.is_backlog:
                return stream
            self._server.delete_stream(stream)
        self._server.make_stream(stream)
        self._names.add(stream)
        if self._workload.is_backlog:
            self.fill(contestant, stream)
            assert self._server.messages(stream) == messages
        return stream

    def beside(self, contestant: Contestant) -> str:
        """The backlog of slow messages that it consumes beside, or ""."""
        if not contestant.beside:
            return ""
        if _SLOW not in self._names:
            self._server.make_stream(_SLOW)
            self._names.add(_SLOW)
            self._fill({"stream": _SLOW, "messages": _SLOW_MESSAGES, "subjects": [f"{_SLOW}.s"]})
        return _SLOW

    def fill(self, contestant: Contestant, stream: str) -> None:
        """Store the whole backlog."""
        self._fill(self._task(contestant, stream))

    def pace(self, contestant: Contestant, stream: str) -> subprocess.Popen[str]:
        """Publish at the workload's rate from now on."""
        return self._publish("pace", self._task(contestant, stream))

    def _fill(self, task: dict[str, object]) -> None:
        filling = self._publish("fill", task)
        if filling.wait(timeout=_FILL_SECONDS) != 0:
            raise RuntimeError(f"{task['stream']} could not be filled")

    def _publish(self, verb: str, task: dict[str, object]) -> subprocess.Popen[str]:
        return environment("native").popen(verb, json.dumps({"url": self._server.url, **task}))

    def _task(self, contestant: Contestant, stream: str) -> dict[str, object]:
        payload = self._workload.payload
        return {
            "stream": stream,
            "messages": self.messages(contestant),
            "subjects": self.subjects(contestant, stream),
            "payload": _taskiq(payload) if contestant.taskiq else payload,
            "repeat": self._workload.repeat,
            "rate": self._workload.rate,
        }


def _taskiq(payload: str) -> str:
    message = {"task_id": "1", "task_name": "parse", "args": [payload], "kwargs": {}}
    return json.dumps({**message, "labels": {}, "labels_types": {}})
