"""A payload as text that a page can show: cut, escaped by the template, obeyed by nothing."""

import json
import logging
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from nats_consumer.exceptions import ConfigurationError
from nats_consumer.settings import admin_payload
from nats_consumer.terminal import visible

if TYPE_CHECKING:
    from nats_consumer._native import StoredLetter

logger = logging.getLogger("nats_consumer")

FORMS = ("json", "text", "hex")
# Bytes of a payload, and characters of what it is shown as.
MOST_BYTES = 64 * 1024
_MOST_CHARACTERS = 4 * MOST_BYTES
_HEX_COLUMNS = 16

_MOST_HEADERS = 100
_MOST_OF_HEADER = 1024


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A payload as a page shows it. `size` is the size of the whole payload in bytes; `remark` says
    why its text is missing or cut."""

    form: str = ""
    text: str = ""
    size: int | None = None
    remark: str = ""


def shown_payload(letter: "StoredLetter", form: str | None) -> Shown:
    """The payload in this form, or in the first that fits; masked, if the project masks."""
    if letter.payload is None:
        return Shown(remark="It is too large for the dead letter, and stored beside it.")
    try:
        payload = _masked(letter, letter.payload)
    except Exception:
        # Whatever the project's function raises: without it, nothing is shown.
        logger.exception("The function of NATS_CONSUMER['admin_payload'] failed.")
        return Shown(remark="The project's function for payloads failed, so nothing is shown.")
    if payload is None:
        return Shown(remark="The project does not show it.")
    part = payload[:MOST_BYTES]
    is_cut = len(payload) > len(part)
    form, text = _in_form(part, form, is_cut=is_cut)
    return Shown(
        form=form,
        text=text[:_MOST_CHARACTERS],
        size=len(payload),
        remark="Only the beginning is shown." if is_cut or len(text) > _MOST_CHARACTERS else "",
    )


def shown_headers(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The first headers, the beginning of each."""
    for name, value in islice(headers, _MOST_HEADERS):
        cut = " ..." if len(value) > _MOST_OF_HEADER else ""
        yield visible(name[:_MOST_OF_HEADER]), f"{visible(value[:_MOST_OF_HEADER])}{cut}"


def _masked(letter: "StoredLetter", payload: bytes) -> bytes | None:
    mask = admin_payload()
    if mask is None:
        return payload
    masked = mask(payload, letter)
    if masked is not None and not isinstance(masked, bytes | str):
        raise ConfigurationError(
            'The function of NATS_CONSUMER["admin_payload"] returned '
            f"{type(masked).__name__}, not bytes, text or None."
        )
    return masked.encode(errors="replace") if isinstance(masked, str) else masked


def _in_form(payload: bytes, form: str | None, *, is_cut: bool) -> tuple[str, str]:
    if form in (None, "json"):
        text = _json(payload)
        if text is not None:
            return "json", text
    if form != "hex":
        text = _text(payload, is_cut=is_cut, may_be_bytes=form is None)
        if text is not None:
            return "text", text
    return "hex", _hex(payload)


def _json(payload: bytes) -> str | None:
    """The JSON with indentation; None if it is none."""
    try:
        value = json.loads(payload)
        # Deep lists grow by their indentation: only what is shown is written.
        chunks, length = [], 0
        for chunk in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
            chunks.append(chunk)
            length += len(chunk)
            if length > _MOST_CHARACTERS:
                break
    except (ValueError, RecursionError):
        return None
    return visible("".join(chunks))


def _text(payload: bytes, *, is_cut: bool, may_be_bytes: bool) -> str | None:
    """The payload as text; None if it is none, and another form is possible."""
    errors = "strict" if may_be_bytes else "replace"
    try:
        # Of a payload that is cut, the last character may be a part of one.
        return visible(getincrementaldecoder("utf-8")(errors).decode(payload, final=not is_cut))
    except UnicodeDecodeError:
        return None


def _hex(payload: bytes) -> str:
    lines = []
    for start in range(0, len(payload), _HEX_COLUMNS):
        row = payload[start : start + _HEX_COLUMNS]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{start:06x}  {row.hex(' '):<{3 * _HEX_COLUMNS - 1}}  {text}")
    return "\n".join(lines)
