"""The tables of the reference pages."""

import re

from tests.docs.support.blocks import ROOT

_CODE = re.compile(r"`([^`]+)`")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)


def prose(page: str) -> str:
    """The page without its code blocks."""
    return _FENCED.sub("", (ROOT / "docs" / page).read_text())


def section(page: str, heading: str) -> str:
    """The text under a heading of the page, up to the next heading."""
    text = prose(page)
    found = list(_HEADING.finditer(text))
    for number, match in enumerate(found):
        if match[2] == heading:
            end = found[number + 1].start() if number + 1 < len(found) else len(text)
            return text[match.end() : end]
    raise AssertionError(f"{page} has no heading {heading!r}")


def rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the tables under the heading, without their heads."""
    lines = [line for line in section(page, heading).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = [number for number, row in enumerate(cells) if set("".join(row)) <= set("-:")]
    heads = {number - 1 for number in rules} | set(rules)
    return [row for number, row in enumerate(cells) if number not in heads]


def spans(text: str) -> list[str]:
    """Return the texts in backticks."""
    return _CODE.findall(text)


def first_spans(page: str, heading: str) -> dict[str, list[str]]:
    """The rows by the code in their first cell, which may name several things at once."""
    return {name: row for row in rows(page, heading) for name in spans(row[0])}
