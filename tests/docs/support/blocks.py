"""The code blocks of a page, and what its HTML comments say about them.

A page is a small project: its Python blocks are files or snippets, in the order of the page.

- A line `# shop/consumers.py` in a Python block names the file that what follows belongs to. Blocks
  for one file are added up. A block without such a line is a snippet, which is run as a script; if
  it declares a consumer or a handler, it belongs to `shop/consumers.py`.
- `<!-- test: ... -->` is Python that a reader does not see, run where it stands.
- `<!-- not run: the reason -->` before a block keeps it from being run.
- `<!-- the worker prints -->` before a text block: its lines are in the worker's log.
- `<!-- handlers fail on purpose -->` allows errors in the worker's log.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[3]

_FENCE = re.compile(r"^( *)```(\w*)\s*$")
_COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
_FILE = re.compile(r"^# ([\w/]+\.py)$")
_DECLARES = re.compile(r"^class \w+\(.*Consumer(Handler)?\b.*\):", re.MULTILINE)
_CONSUMERS = "shop/consumers.py"


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its first line of text, and `not_run` the reason that a
    comment before it gives for not running it. A hidden one is in a comment; one that is printed
    is what the worker says."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None = None
    hidden: bool = False
    is_printed: bool = False

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def parts(self) -> Iterator[tuple[str | None, str]]:
        """The block cut into files: each file's name, or None for a snippet, and its text, which
        stands at the lines where it stands in the page."""
        name = None if self.hidden or not _DECLARES.search(self.text) else _CONSUMERS
        lines: list[str] = []
        began = 0
        for number, line in enumerate(self.text.splitlines()):
            if match := _FILE.match(line):
                yield from self._part(name, began, lines)
                name, lines, began = match[1], [], number
            lines.append(line)
        yield from self._part(name, began, lines)

    def _part(
        self, name: str | None, began: int, lines: list[str]
    ) -> Iterator[tuple[str | None, str]]:
        if any(line.strip() for line in lines):
            yield name, "\n" * (self.line - 1 + began) + "\n".join(lines) + "\n"


def pages() -> list[Path]:
    """README.md and every page of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """The page's path inside the repository."""
    return (page.relative_to(ROOT) if page.is_relative_to(ROOT) else page).as_posix()


def blocks(page: Path) -> list[Block]:
    """Every block of the page in order, with the hidden ones."""
    return list(_blocks(name_of(page), page.read_text()))


def says(page: Path, comment: str) -> bool:
    """Whether the page has this HTML comment."""
    return comment in (match[1].strip() for match in _COMMENT.finditer(page.read_text()))


def _blocks(page: str, text: str) -> Iterator[Block]:
    lines = text.splitlines()
    number = 0
    comment = ""
    while number < len(lines):
        line = lines[number]
        if fence := _FENCE.match(line):
            end = _end(lines, number + 1, page)
            body = dedent("\n".join(lines[number + 1 : end]) + "\n")
            printed = comment == "the worker prints"
            not_run = comment.partition(":")[2].strip() if comment.startswith("not run") else None
            yield Block(page, number + 2, fence[2], body, not_run, is_printed=printed)
            number, comment = end, ""
        elif line.startswith("<!--"):
            match = _COMMENT.match("\n".join(lines[number:]))
            assert match, f"{page}:{number + 1}: the comment does not end"
            comment = match[1].strip()
            kind, _, rest = match[1].partition(":")
            if kind.strip() == "test":
                yield Block(page, number + 1, "python", dedent(rest).strip() + "\n", hidden=True)
            number += match[0].count("\n")
        elif line.strip():
            comment = ""
        number += 1


def _end(lines: list[str], start: int, page: str) -> int:
    for number in range(start, len(lines)):
        if lines[number].strip() == "```":
            return number
    raise AssertionError(f"{page}:{start}: the block does not end")
