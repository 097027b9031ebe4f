"""Follow the Dockerfile of the guide to deploying, without Docker.

Its paths are folders of a temporary one, its images the Python at hand, its process 1 the first
process of a PID namespace, where Linux lets us make one: there a signal that the process has no
handler for does nothing, as in a container.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Container:
    """A container in `root`, as the instructions so far have made it."""

    root: Path
    python: str
    context: Path
    environment: dict[str, str]
    workdir: Path = field(init=False)
    user: int | None = None
    command: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.workdir = self.root

    def build(self, dockerfile: str) -> None:
        """Execute the instructions. Raises AssertionError for one that is not known here."""
        base = dict(self.environment)
        for line in dockerfile.splitlines():
            if not line or line.startswith("#"):
                continue
            print(line, flush=True)
            instruction, _, rest = line.partition(" ")
            if instruction == "FROM":
                # Each stage begins with nothing but Python; the folders of one stay for COPY.
                self.environment, self.workdir, self.user = dict(base), self.root, None
                assert rest.startswith("python:"), rest
                continue
            getattr(self, f"_{instruction.lower()}")(rest)

    def start(self, log: Path) -> "Process":
        """Start CMD."""
        assert self.user, "the image runs as root"
        with log.open("w") as output:
            outside = subprocess.Popen(
                [*_as_process_1(self.user), *self.command],
                cwd=self.workdir,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return Process(outside)

    def _run(self, command: str) -> None:
        command = re.sub(r"^python\b", self.python, self._inside(command))
        environment = self.environment
        subprocess.run(command, shell=True, cwd=self.workdir, env=environment, check=True)  # noqa: S602 - as Docker does

    def _env(self, assignments: str) -> None:
        for assignment in assignments.split():
            name, value = assignment.split("=", 1)
            value = self._inside(value).replace("$PATH", self.environment["PATH"])
            self.environment[name] = value

    def _workdir(self, path: str) -> None:
        self.workdir = Path(self._inside(path))
        self.workdir.mkdir()

    def _copy(self, arguments: str) -> None:
        if arguments.startswith("--from="):
            _, source, target = arguments.split()
            assert source == target, "a virtual environment does not work at another path"
            assert Path(self._inside(source)).is_dir(), f"no stage made {source}"
            return
        source, target = arguments.split()
        found, copy = self.context / source, self.workdir / self._inside(target)
        if found.is_dir():
            shutil.copytree(found, copy, dirs_exist_ok=True)
        else:
            shutil.copy(found, copy)

    def _user(self, number: str) -> None:
        self.user = int(number)  # Kubernetes knows only of a number that it is not root

    def _cmd(self, command: str) -> None:
        self.command = json.loads(command)  # the list form, without a shell

    def _inside(self, text: str) -> str:
        """Absolute paths become paths below the root."""
        return re.sub(r"(?<![\w.])/(?=\w)", f"{self.root}/", text)


@dataclass
class Process:
    """The container's process 1. `outside` started it, and ends with its exit code."""

    outside: subprocess.Popen[bytes]

    def stop(self, seconds: float) -> int:
        """SIGTERM, as `docker stop`; return the exit code. Kills it after `seconds`."""
        children = Path(f"/proc/{self.outside.pid}/task/{self.outside.pid}/children").read_text()
        inside = int(children) if _CAN_UNSHARE else self.outside.pid
        os.kill(inside, signal.SIGTERM)
        return self.outside.wait(timeout=seconds)

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.outside.poll() is None:
            self.outside.kill()
            self.outside.wait()


_UNSHARE = ["unshare", "--pid", "--fork", "--kill-child"]
_CAN_UNSHARE = shutil.which("unshare") is not None and (
    subprocess.run([*_UNSHARE, "true"], stderr=subprocess.DEVNULL).returncode == 0
)


def _as_process_1(user: int) -> list[str]:
    if not _CAN_UNSHARE:
        print("PID namespaces are not allowed here: the worker is no process 1", flush=True)
        return []
    # Reading is allowed everywhere: the Python at hand may be in root's home.
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [*_UNSHARE, "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *reads]
