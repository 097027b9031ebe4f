"""The headers of a message to publish."""

from collections.abc import Mapping


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, if they are text. Raises TypeError, naming the one that is not."""
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a dict of texts, not {headers!r}.")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(
                f"headers must have text for names and values, not {name!r}: {value!r}."
            )
    return dict(headers)
