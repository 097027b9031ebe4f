"""Text of strangers on a terminal: payloads, subjects, headers and the errors that quote them."""

import re

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
