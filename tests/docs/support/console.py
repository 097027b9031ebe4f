"""The commands of a console block: does each exist, with these arguments?"""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from django.core.management import get_commands, load_command_class

from tests.docs.support.blocks import ROOT, blocks, pages

PACKAGE = "django-nats-consumer"
_PROJECT = re.compile(rf"(?:{PACKAGE}|\.)(?:\[([\w,]+)\])?(?:[<>=~!].*)?$")
# Ordinary commands of a shell, which need no look.
_ORDINARY = {"cd", "curl", "export", "kill", "git", "source"}
_SEPARATORS = {"|", "&&", ";", "||", "&"}


def commands(text: str) -> Iterator[list[str]]:
    """The commands after each `$ `, as lists of words."""
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        if line.startswith("$ "):
            yield from _split(shlex.split(line[2:], comments=True))


def problem(words: list[str]) -> str | None:
    """Why the command would not run, or None."""
    while words and re.match(r"^\w+=", words[0]):
        words = words[1:]
    program, arguments = Path(words[0]).name, words[1:]
    if program in _ORDINARY:
        return None
    if program == "django-admin":
        return _manage(arguments[0], arguments[1:])
    if program in ("python", "python3"):
        return _python(arguments)
    if program in ("pip", "make", "nats-server"):
        return {"pip": _pip, "make": _make, "nats-server": _nats_server}[program](arguments)
    return f"{program} is no command that the documentation may use"


def _split(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    for word in words:
        if word in _SEPARATORS:
            yield command
            command = []
        else:
            command.append(word)
    if command:
        yield command


def _python(arguments: list[str]) -> str | None:
    if arguments[:2] == ["-m", "pip"]:
        return _pip(arguments[2:])
    if arguments[0].endswith("manage.py"):
        return _manage(arguments[1], arguments[2:])
    if arguments[0] in _files():
        return None
    return f"no page has a file {arguments[0]}"


def _manage(name: str, arguments: list[str]) -> str | None:
    apps = get_commands()
    if name not in apps:
        return f"manage.py has no command {name}"
    app = apps[name]
    command = load_command_class(app, name) if isinstance(app, str) else app
    try:
        options = command.create_parser("manage.py", name).parse_args(arguments)
    except (SystemExit, Exception) as error:
        return f"manage.py {name} does not take {arguments}: {error}"
    if name == "nats_consumer":
        unknown = [each for each in options.names if each.rpartition(".")[2] not in _classes()]
        return f"no page has the consumers {unknown}" if unknown else None
    return None


def _pip(arguments: list[str]) -> str | None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for requirement in arguments[1:]:
        match = _PROJECT.match(requirement)
        for extra in match[1].split(",") if match and match[1] else []:
            if extra not in extras:
                return f"there is no extra {extra!r}"
    return None if arguments[0] in ("install", "uninstall", "wheel") else f"pip {arguments[0]}?"


def _make(arguments: list[str]) -> str | None:
    makefile = (ROOT / "Makefile").read_text()
    for target in arguments:
        if "=" not in target and not re.search(rf"^{target}:", makefile, re.MULTILINE):
            return f"the Makefile has no {target!r}"
    return None


def _nats_server(arguments: list[str]) -> str | None:
    binary = Path(sys.executable).with_name("nats-server")
    usage = subprocess.run([binary, "--help"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"(?<![\w-])(--?\w+)", usage.stdout + usage.stderr))
    unknown = [each for each in arguments if each.startswith("-") and each not in known]
    return f"nats-server does not know {unknown}" if unknown else None


def _files() -> set[str | None]:
    return {name for page in pages() for block in blocks(page) for name, _ in block.parts()}


def _classes() -> set[str]:
    texts = [block.text for page in pages() for block in blocks(page)]
    return set(re.findall(r"^class (\w+)\(", "\n".join(texts), re.MULTILINE))
