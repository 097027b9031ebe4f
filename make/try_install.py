"""Install a wheel or an sdist as a user does, and follow the quickstart with it.

`try_install.py wheel 3.12 [DJANGO]`: the file is in `dist/`. The virtual environment and the
project are in a folder of their own: nothing of the checkout is on a path there. A wheel must do
without a compiler. `container` follows the Dockerfile of the guide to deploying, with the wheel.
"""

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from container import Container
from steps import NOT_RUN, ROOT

# The tests are no package that make/ could import by its name.
sys.path.insert(0, str(ROOT))
blocks = importlib.import_module("tests.docs.support.blocks").blocks
NatsServer = importlib.import_module("tests.servers").NatsServer
Project = importlib.import_module("tests.live.support.project").Project

PATTERNS = {"wheel": "*.whl", "sdist": "*.tar.gz", "container": "*.whl"}
DEPLOYING = ROOT / "docs/guides/deploying.md"
QUICKSTART = ROOT / "docs/quickstart.md"
CONSUMERS = """
from nats_consumer import JetstreamPullConsumer, operations


class Orders(JetstreamPullConsumer):
    stream_name = "orders"
    filter_subject = "orders.>"

    def setup(self):
        return operations.CreateStream(name="orders", subjects=["orders.>"])

    def handle_message(self, message):
        pass
"""
_TIMEOUT = 180
_OURS = ("VIRTUAL_ENV", "PYTHONPATH", "PYO3_PYTHON", "DJANGO_SETTINGS_MODULE", "NATS_SERVER")
_PLAIN = {name: value for name, value in os.environ.items() if name not in _OURS}
_ORDER_ARRIVED = "from shop.models import Order; print(list(Order.objects.values_list('status')))"


def main(kind: str, version: str, *requirements: str) -> int:
    """Install and try; return the exit code."""
    found = sorted((ROOT / "dist").glob(PATTERNS[kind]))
    if not found:
        print(f"There is no {kind} in dist: run `make wheels`.")
        return NOT_RUN
    python = subprocess.check_output([ROOT / "make/find-python", version], text=True).strip()
    with tempfile.TemporaryDirectory(prefix="quickstart-") as folder:
        if kind == "container":
            _run_container(Path(folder), python, [str(found[-1]), *requirements])
        else:
            user = User(Path(folder))
            user.install(python, found[-1], kind, requirements)
            user.follow(blocks(QUICKSTART))
    page = DEPLOYING if kind == "container" else QUICKSTART
    print(f"{page.name} works with {found[-1].name} on Python {version}")
    return 0


def _run_container(folder: Path, python: str, requirements: list[str]) -> None:
    """Build what the Dockerfile describes, start it, and stop it as `docker stop` does."""
    folder.chmod(0o755)  # the container's user is not ours
    server = NatsServer(folder)
    server.start()
    context = Project(folder / "context", server.url, CONSUMERS).folder
    (context / "requirements.txt").write_text("\n".join(requirements))
    environment = {**_PLAIN, "PATH": "/usr/bin:/bin", "PIP_QUIET": "1"}
    container = Container(folder / "root", python, context, environment)
    [dockerfile] = [each.text for each in blocks(DEPLOYING) if each.language == "dockerfile"]
    container.build(dockerfile)
    log = folder / "container.log"
    process = container.start(log)
    try:
        _eventually(lambda: "Orders: consuming" in log.read_text(), log.read_text)
        assert process.stop(_TIMEOUT) == 0, log.read_text()
    finally:
        process.end()
        server.stop()


class User:
    """Somebody with a folder, a virtual environment in it and a shell."""

    def __init__(self, folder: Path) -> None:
        self._environment = folder / "environment"
        self._here = folder
        path = os.pathsep.join([str(self._environment / "bin"), "/usr/bin", "/bin"])
        self._variables = {**_PLAIN, "PATH": path}
        self._worker: Worker | None = None

    def install(self, python: str, file: Path, kind: str, requirements: tuple[str, ...]) -> None:
        """`pip install` the file with the extra `server`; only an sdist may use cargo."""
        subprocess.run([python, "-m", "venv", self._environment], check=True)
        pip = [str(self._environment / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
        variables = self._variables
        if kind == "sdist":
            # In a folder that stays, so that cargo compiles the dependencies only once.
            variables = {**_PLAIN, "CARGO_TARGET_DIR": str(ROOT / "target")}
        chosen = (
            ["--no-binary=django-nats-consumer"] if kind == "sdist" else ["--only-binary=:all:"]
        )
        command = [*pip, "install", "--quiet", *chosen, f"{file}[server]", *requirements]
        subprocess.run(command, cwd=self._here, env=variables, check=True)
        subprocess.run([*pip, "check"], cwd=self._here, env=self._variables, check=True)

    def follow(self, page: list[Any]) -> None:
        """Write the files, run the commands and the snippets, in the order of the page."""
        with self._the_worker_ends():
            for block in page:
                if block.language == "console":
                    for line in re.findall(r"^\$ (.*)$", block.text, re.MULTILINE):
                        self._run(line)
                elif block.language == "python" and not block.hidden:
                    for name, text in block.parts():
                        self._write(name, text.lstrip("\n"))
                elif block.is_printed:
                    self._wait_for(block.text.strip())
            self._wait_for_order()

    def _run(self, line: str) -> None:
        words = shlex.split(line)
        print(f"$ {line}", flush=True)
        if words[0] == "pip":
            return  # done by `install`
        if words[0] == "cd":
            self._here /= words[1]
        elif "nats_consumer" in words:
            self._worker = Worker(words, self._here, self._variables)
        else:
            self._output(words)

    def _write(self, name: str | None, text: str) -> None:
        if name is None:
            self._output(["python", "manage.py", "shell", "-c", text])
        elif name == "settings.py":
            # `[..., "shop"]` on the page stands for what startproject wrote.
            with (self._here / self._here.name / name).open("a") as settings:
                settings.write(text.replace("[...,", "[*INSTALLED_APPS,"))
        else:
            (self._here / name).write_text(text)

    def _wait_for(self, text: str) -> None:
        assert self._worker is not None, "the page prints a worker's line before it starts one"
        worker = self._worker
        _eventually(
            lambda: text in worker.output(), lambda: f"{text!r} is not in {worker.output()}"
        )

    def _wait_for_order(self) -> None:
        assert self._worker is not None
        shell = ["python", "manage.py", "shell", "-c", _ORDER_ARRIVED]
        worker = self._worker
        _eventually(lambda: "created" in self._output(shell), worker.output)

    def _output(self, words: list[str]) -> str:
        result = subprocess.run(
            words,
            cwd=self._here,
            env=self._variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT,
            check=False,
        )
        assert result.returncode == 0, f"{shlex.join(words)}:\n{result.stdout}"
        return result.stdout

    @contextmanager
    def _the_worker_ends(self) -> Iterator[None]:
        try:
            yield
            assert self._worker is not None, "the page starts no worker"
            assert self._worker.interrupt() == 0, self._worker.output()
        finally:
            if self._worker:
                self._worker.end()


class Worker:
    """The worker that the quickstart starts; it runs until Ctrl-C."""

    def __init__(self, words: list[str], folder: Path, variables: dict[str, str]) -> None:
        self._log = folder / "worker.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                words, cwd=folder, env=variables, stdout=log, stderr=subprocess.STDOUT
            )

    def output(self) -> str:
        """Return all that it printed so far."""
        return self._log.read_text()

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(timeout=_TIMEOUT)

    def end(self) -> None:
        """Kill it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _eventually(holds: Callable[[], bool], explain: Callable[[], str]) -> None:
    end = time.monotonic() + _TIMEOUT
    while not holds():
        assert time.monotonic() < end, explain()
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
