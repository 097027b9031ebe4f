"""Rounds: every contestant once a round, so that what disturbs one disturbs its neighbours."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

import meter
from environments import Environment, NotAvailable, environment
from lineup import Contestant
from match import ContestantFailed, Result, Start, play
from publishing import publish
from server import Server
from workloads import Workload

_FILL_SECONDS = 120
# Others on the machine: how many cores they may keep busy, and how often a match is played where
# they keep busy more.
_QUIET_CORES = 0.15
_TRIES = 3
# Handlers that do not count: nothing at all is their point. Nor do threads, which would have to
# take turns for it.
_UNCOUNTED = ("nothing", "through")


@dataclass
class Standing:
    """What a contestant did in all rounds, or why it did not."""

    contestant: Contestant
    results: list[Result] = field(default_factory=list)
    failure: str = ""


class Tournament:
    """The contestants of one workload, on one server."""

    def __init__(
        self,
        server: Server,
        workload: Workload,
        members: Sequence[Contestant],
        *,
        scale: float,
        patience: float,
    ) -> None:
        """`scale` is a factor for the messages; `patience` is how many seconds a match waits for
        the machine to be quiet."""
        self._server = server
        self._workload = workload
        self._scale = scale
        self._patience = patience
        self.standings = [Standing(contestant) for contestant in members]
        self.environments: dict[str, Environment] = {}
        self._durables = 0
        self._streams: set[str] = set()

    def prepare(self) -> None:
        """Make the environments; who has none is out."""
        for standing in self.standings:
            name = standing.contestant.environment
            if name in self.environments or standing.failure:
                continue
            try:
                self.environments[name] = environment(name)
            except NotAvailable as error:
                for each in self.standings:
                    if each.contestant.environment == name:
                        each.failure = str(error)
        if "native" not in self.environments:  # it fills the streams
            self.environments["native"] = environment("native")

    def play_round(self) -> None:
        """Everybody who is still in plays once."""
        for standing in self.standings:
            if standing.failure:
                continue
            try:
                result = self._play_undisturbed(standing.contestant)
            except ContestantFailed as error:
                standing.failure = str(error)
                print(f"    {standing.contestant.name}: {error}", flush=True)
                continue
            standing.results.append(result)
            print(f"    {standing.contestant.name}: {_shown(result)}", flush=True)

    def _play_undisturbed(self, contestant: Contestant) -> Result:
        """The first match in which nobody else took much of the machine, or the one of several
        with the least."""
        results: list[Result] = []
        while len(results) < _TRIES:
            meter.wait_for_quiet(_QUIET_CORES, self._patience)
            results.append(self._play(contestant))
            if results[-1].foreign < _QUIET_CORES or not self._patience:
                break
        return min(results, key=lambda result: result.foreign)

    def _play(self, contestant: Contestant) -> Result:
        workload = self._workload
        work = contestant.work or workload.work
        messages = self._messages(contestant)
        stream = self._stream(contestant, messages)
        self._durables += 1
        task = {
            "url": self._server.url,
            "stream": stream,
            "durable": f"d{self._durables}",
            "subject": f"{stream}.>",
            "kind": contestant.kind,
            "work": work,
            "subjects": self._subjects(contestant, stream),
            "loop": contestant.loop,
            "options": contestant.options,
            "payload": workload.payload if workload.publishes else "",
            "messages": messages,
            "bytes": len(workload.payload),
        }
        chosen = self.environments[contestant.environment]
        if workload.publishes:
            return publish(self._server, contestant, chosen, task)
        counts = work not in _UNCOUNTED and not contestant.options.get("def")
        start = Start(task, messages, contestant.processes, counts)
        pace = (lambda: self._publish("pace", contestant, stream)) if workload.rate else None
        return play(self._server, contestant, chosen, start, pace)

    def _messages(self, contestant: Contestant) -> int:
        return round(self._workload.messages * contestant.share * self._scale)

    def _subjects(self, contestant: Contestant, stream: str) -> list[str]:
        count = contestant.subjects or self._workload.subjects
        return [f"{stream}.s{number}.event" for number in range(count)]

    def _stream(self, contestant: Contestant, messages: int) -> str:
        form = (
            "taskiq" if contestant.taskiq else f"{contestant.subjects or self._workload.subjects}"
        )
        # No separator: the names of a ConsumerHandler's methods begin behind the first one.
        stream = f"{self._workload.name}{messages}x{form}"
        is_backlog = not (self._workload.rate or self._workload.publishes)
        if stream in self._streams:
            if is_backlog:
                return stream
            self._server.delete_stream(stream)
        self._server.make_stream(stream)
        self._streams.add(stream)
        if is_backlog:
            filling = self._publish("fill", contestant, stream)
            if filling.wait(timeout=_FILL_SECONDS) != 0:
                raise RuntimeError(f"{stream} could not be filled")
            assert self._server.messages(stream) == messages
        return stream

    def _publish(self, verb: str, contestant: Contestant, stream: str) -> subprocess.Popen[str]:
        workload = self._workload
        task = {
            "url": self._server.url,
            "stream": stream,
            "messages": self._messages(contestant),
            "subjects": self._subjects(contestant, stream),
            "payload": _taskiq(workload.payload) if contestant.taskiq else workload.payload,
            "rate": workload.rate,
        }
        return self.environments["native"].popen(verb, json.dumps(task))


def _taskiq(payload: str) -> str:
    message = {"task_id": "1", "task_name": "parse", "args": [payload], "kwargs": {}}
    return json.dumps({**message, "labels": {}, "labels_types": {}})


def _shown(result: Result) -> str:
    disturbed = (
        f" (others took {result.foreign:.2f} cores)" if result.foreign > _QUIET_CORES else ""
    )
    return f"{result.rate:,.0f}/s{disturbed}"
