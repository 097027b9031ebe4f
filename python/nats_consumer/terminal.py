"""Text on a terminal: tables, and the text of strangers, such as payloads and subjects."""

import re
from collections.abc import Iterator, Sequence

# What makes a terminal act, or show a text in another order than it has: all controls but line
# ends and tabs, the marks of writing direction, and halves of characters.
_ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with everything that a terminal would obey written out, as in `\\x1b[2J`."""
    return _ACTS.sub(lambda found: _written_out(found[0]), text)


def _written_out(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows in columns below their heading; nothing without rows. A column is right-aligned if
    its cells are numbers."""
    if not rows:
        return
    columns = list(zip(heading, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_number = [all(map(_is_number, column[1:])) for column in columns]
    for row in (heading, *rows):
        cells = zip(row, widths, is_number, strict=True)
        yield "  ".join(
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells
        ).rstrip()


def _is_number(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell == "-"
