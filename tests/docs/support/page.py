"""A page of the documentation as a Django project with a worker and a server of its own."""

import ast
import asyncio
import json
import re
from collections import defaultdict
from pathlib import Path

from nats_consumer import get_nats_client
from tests.command import Command
from tests.docs.support.blocks import ROOT, Block, blocks, name_of, says
from tests.live.support.project import Project
from tests.servers import NatsServer
from tests.waiting import eventually

# A second connection, to the page's one server.
CONNECTIONS = 'NATS_CONSUMER["connections"] = {"analytics": NATS_CONSUMER["connect_args"]}\n'

DATABASE = """
DATABASES = {"default": {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": BASE_DIR / "shop.sqlite3",
    "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ALLOWED_HOSTS = ["*"]
"""

MODELS = """
from django.db import models


class Order(models.Model):
    number = models.IntegerField(unique=True)
    status = models.CharField(max_length=20, default="created")
"""

# What a handler of the pages may look for in a message.
MESSAGE = {"id": 1, "number": 1, "name": "a lamp", "status": "created"}

_SETTINGS = "settings.py"
_FAILURE = re.compile(r"Traceback|ERROR |CRITICAL |attempt \d+ .*at message")
_CONTRIB = re.compile(r'^ +"(nats_consumer\.contrib\.\w+)",$', re.MULTILINE)
_CONSUMER = re.compile(r"Jetstream(Push|Pull)Consumer")


class Page:
    """The files and the snippets that the page's blocks make."""

    def __init__(self, page: Path) -> None:
        self.name = name_of(page)
        self.failures_expected = says(page, "handlers fail on purpose")
        self.files: dict[str, str] = defaultdict(str)
        self.snippets: list[tuple[str, str]] = []
        self.printed: list[str] = []
        self.optional_apps = sorted(set(_CONTRIB.findall(page.read_text())))
        for block in blocks(page):
            if block.language == "python" and not block.not_run:
                self._add(block)
            if block.is_printed:
                self.printed += block.text.splitlines()

    @property
    def has_something_to_run(self) -> bool:
        """Whether there is a Python block besides the settings."""
        return bool(self.files or self.snippets)

    @property
    def consumers(self) -> list[str]:
        """The names of the consumer classes in its files."""
        return [
            node.name
            for name, text in self.files.items()
            if name.endswith("consumers.py")
            for node in ast.parse(text).body
            if isinstance(node, ast.ClassDef) and _is_consumer(node)
        ]

    def _add(self, block: Block) -> None:
        for name, text in block.parts():
            if name is None:
                self.snippets.append((self.name, text))
            elif name != _SETTINGS:
                # Blank lines keep the line numbers of the page in tracebacks.
                earlier = self.files[name]
                self.files[name] = earlier + text[earlier.count("\n") :]


class PageRun:
    """A page's project in a folder, at work with a server."""

    def __init__(self, page: Page, folder: Path, server: NatsServer) -> None:
        self._page = page
        self._server = server
        self._project = _PageProject(folder, server.url, None)
        self._write()

    def run(self) -> None:
        """Run the page: the database, the worker, the snippets, a message for every consumer, and
        the end of the worker. Fails with what was printed."""
        _succeeds(self._project.run("manage.py", "migrate", "--run-syncdb", "--verbosity", "0"))
        consumers = self._page.consumers
        worker = self._project.consume("--setup", "--log-level", "INFO") if consumers else None
        if worker:
            for consumer in consumers:
                worker.wait_for(f": {consumer}: consuming ")
        self._run_snippets(worker)
        if worker:
            self._every_consumer_gets_something(worker)
            worker.interrupt()
            _succeeds(worker)
            self._check_log(worker)

    def end(self) -> None:
        """End what still runs."""
        self._project.end()

    def _write(self) -> None:
        apps = {Path(name).parts[0] for name in self._page.files if "/" in name}
        settings = (self._project.folder / _SETTINGS).read_text()
        ours = ["nats_consumer", *self._page.optional_apps]
        installed = f"INSTALLED_APPS = {[*ours, *sorted({'shop', *apps})]}\n"
        base = "from pathlib import Path\nBASE_DIR = Path(__file__).parent\n"
        urls = 'ROOT_URLCONF = "shop.urls"\n' if "shop/urls.py" in self._page.files else ""
        self._project.write(_SETTINGS, base + settings + CONNECTIONS + installed + DATABASE + urls)
        for name, text in {"shop/models.py": MODELS, **self._page.files}.items():
            for folder in reversed(Path(name).parents[:-1]):
                (self._project.folder / folder).mkdir(exist_ok=True)
                self._project.write(f"{folder}/__init__.py", "")
            (self._project.folder / name).write_text(text)

    def _run_snippets(self, worker: Command | None) -> None:
        self._project.write("snippets.json", json.dumps(self._page.snippets))
        script = self._project.run("-m", "tests.docs.support.snippets", "snippets.json")
        if script.finish(timeout=120) != 0:
            log = worker.output if worker else "(no worker)"
            raise AssertionError(f"{script.output}\n--- the worker:\n{log}")

    def _every_consumer_gets_something(self, worker: Command) -> None:
        asyncio.run(self._publish_for_each_filter())

        def waiting() -> list[str]:
            return [
                consumer["name"]
                for stream in self._server.streams().values()
                for consumer in stream.get("consumer_detail", [])
                if consumer["delivered"]["consumer_seq"] == 0
            ]

        eventually(lambda: not waiting(), explain=lambda: f"{waiting()}\n{worker.output}")

    async def _publish_for_each_filter(self) -> None:
        subjects: set[str] = set()
        for stream in self._server.streams().values():
            for consumer in stream.get("consumer_detail", []):
                config = consumer["config"]
                one = config.get("filter_subject")
                whole = stream["config"]["subjects"]
                subjects.update(config.get("filter_subjects") or ([one] if one else whole))
        async with await get_nats_client(servers=[self._server.url]) as client:
            for subject in sorted(subjects):
                literal = subject.replace("*", "created").replace(">", "created")
                await client.jetstream().publish(literal, json.dumps(MESSAGE).encode())

    def _check_log(self, worker: Command) -> None:
        for line in self._page.printed:
            assert line in worker.output, f"{self._page.name}: {line!r} is not in {worker.output}"
        if self._page.failures_expected:
            return
        found = _FAILURE.search(worker.output)
        assert not found, f"{self._page.name}: the worker says {worker.output}"


class _PageProject(Project):
    def run(self, *program: str, **variables: str) -> Command:
        # To find tests.docs.support.snippets; the package is the installed one.
        return super().run(*program, PYTHONPATH=str(ROOT), **variables)


def _is_consumer(node: ast.ClassDef) -> bool:
    named = any(_CONSUMER.search(ast.unparse(base)) for base in node.bases)
    return named and any("stream_name" in ast.unparse(statement) for statement in node.body)


def _succeeds(command: Command) -> None:
    code = command.finish()
    assert code == 0, f"exit code {code}:\n{command.output}"
