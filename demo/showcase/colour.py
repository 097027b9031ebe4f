"""Colours, where the output is a terminal that wants them."""

import os
import sys


def bold(text: str) -> str:
    """For headings."""
    return _styled(text, 1)


def green(text: str) -> str:
    """For what is right."""
    return _styled(text, 32)


def red(text: str) -> str:
    """For what is wrong."""
    return _styled(text, 31)


def _styled(text: str, code: int) -> str:
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{code}m{text}\x1b[0m" if wanted else text
