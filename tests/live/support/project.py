"""A small Django project in a folder of its own, as a user would lay it out."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

from tests.command import Command

MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
"""

SETTINGS = """
SECRET_KEY = "of no use outside the tests"
USE_TZ = True
INSTALLED_APPS = ["nats_consumer", "shop"]
NATS_CONSUMER = {{
    "connect_args": {{
        "servers": [{url!r}],
        "connect_timeout": 1,
        "reconnect_time_wait": 0.1,
    }},
}}
LOGGING = {{
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {{"plain": {{"format": "%(levelname)s %(name)s: %(message)s"}}}},
    "handlers": {{"console": {{"class": "logging.StreamHandler", "formatter": "plain"}}}},
    "root": {{"handlers": ["console"], "level": "INFO"}},
}}
"""


class Project:
    """manage.py, settings.py, and the app `shop` with the `consumers` it is given. `forks` is how
    its commands start."""

    def __init__(
        self, folder: Path, url: str, consumers: str | None, *, forks: bool = False
    ) -> None:
        self.folder = folder
        self._forks = forks
        (folder / "shop").mkdir(parents=True)
        self.write("shop/__init__.py", "")
        self.write("manage.py", MANAGE)
        self.write("settings.py", SETTINGS.format(url=url))
        if consumers is not None:
            self.write("shop/consumers.py", consumers)
        self._commands: list[Command] = []

    def write(self, path: str, text: str) -> None:
        """Write a file of the project."""
        (self.folder / path).write_text(dedent(text))

    def run(self, *program: str, fds: Sequence[int] = (), **variables: str) -> Command:
        """Start `python <program>`, with these variables in its environment and these open
        files."""
        environment = {"DJANGO_SETTINGS_MODULE": "settings", **variables}
        command = Command(
            *program, folder=self.folder, environment=environment, fds=fds, forks=self._forks
        )
        self._commands.append(command)
        return command

    def consume(self, *arguments: str) -> Command:
        """Start `manage.py nats_consumer <arguments>`."""
        return self.run("manage.py", "nats_consumer", *arguments)

    def end(self) -> None:
        """End what still runs."""
        for command in self._commands:
            command.end()
