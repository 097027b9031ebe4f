"""Text of strangers on a terminal."""

import pytest

from nats_consumer.terminal import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("one\rtwo\x7f\x9b", r"one\x0dtwo\x7f\x9b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("half a character: \ud800", r"half a character: \ud800"),
        ("größe € 😀\n\tline", "größe € 😀\n\tline"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown
