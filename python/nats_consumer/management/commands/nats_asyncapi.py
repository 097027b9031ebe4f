"""manage.py nats_asyncapi: write the project's AsyncAPI document, or compare it with a file."""

import json
from difflib import unified_diff
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from nats_consumer.asyncapi import document
from nats_consumer.exceptions import NatsConsumerError


class Command(BaseCommand):
    """Ends with status 0, or 1 if the document differs from the file or cannot be made."""

    help = "Write the AsyncAPI document of the consumers and events, or check a file."

    def add_arguments(self, parser: CommandParser) -> None:
        """The file to write or to check, and the application's name and version."""
        parser.add_argument("--output", metavar="FILE", help="write to this file")
        parser.add_argument("--check", metavar="FILE", help="fail if this file is not up to date")
        parser.add_argument(
            "--title",
            default=_default_title(),
            help="name of the application (default: %(default)s)",
        )
        parser.add_argument(
            "--app-version", default="1", help="version of the application (default: %(default)s)"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Write or check. Raises CommandError."""
        try:
            made = document(options["title"], options["app_version"])
        except (NatsConsumerError, ValueError) as error:
            raise CommandError(str(error)) from error
        text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        if options["check"]:
            self._check(Path(options["check"]), text)
        if options["output"]:
            Path(options["output"]).write_text(text)
        elif not options["check"]:
            self.stdout.write(text, ending="")

    def _check(self, path: Path, text: str) -> None:
        try:
            written = path.read_text()
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
        if written == text:
            return
        lines = unified_diff(
            written.splitlines(), text.splitlines(), str(path), "the code", lineterm=""
        )
        raise CommandError(
            "\n".join([*lines, f"{path} is not up to date. Run: nats_asyncapi --output {path}"])
        )


def _default_title() -> str:
    return settings.SETTINGS_MODULE.partition(".")[0] if settings.SETTINGS_MODULE else "Django"
