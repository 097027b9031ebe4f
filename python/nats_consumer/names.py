"""The rules for the names that NATS knows: streams, durables and subjects."""

from unicodedata import category

# What a server takes on one line, unless it is told otherwise (max_control_line).
_LONGEST = 4096
# A server takes names of 255 bytes, and a stream's marks are beside it in `<stream>-marks`.
_LONGEST_STREAM = 249
_RULE = "use letters, digits, '-' and '_' only, as in 'orders-v2'"
_SPECIAL = {".": "dots", "*": "'*'", ">": "'>'", "/": "slashes", "\\": "backslashes"}


def check_name(name: object, what: str) -> str:
    """Return `name` if a stream or a durable can have it. Raises ValueError, saying why not;
    `what` says whose name it is ("stream_name of OrderConsumer")."""
    if not isinstance(name, str):
        raise ValueError(f"{what} must be a string, not {name!r}.")
    if not name:
        raise ValueError(f"{what} is empty: {_RULE}.")
    if any(char.isspace() for char in name):
        raise ValueError(f"{what} cannot contain spaces: {name!r}; {_RULE}.")
    if _has_control(name):
        raise ValueError(f"{what} cannot contain control characters: {name!r}; {_RULE}.")
    for char, word in _SPECIAL.items():
        if char in name:
            raise ValueError(f"{what} cannot contain {word}: {name!r}; {_RULE}.")
    return name


def check_stream_name(name: object, what: str) -> str:
    """Return `name` if a stream that consumers read from can have it. Raises ValueError, as
    check_name()."""
    checked = check_name(name, what)
    if len(checked.encode(errors="replace")) > _LONGEST_STREAM:
        raise ValueError(
            f"{what} is longer than {_LONGEST_STREAM} bytes, which leaves no room for the names of "
            f"the streams beside it, '<stream>-dlq' and '<stream>-marks': '{checked[:40]}...'."
        )
    return checked


def is_wildcard(subject: str) -> bool:
    """Whether the subject is a pattern: a whole token `*`, or `>` as the last."""
    return any(token in ("*", ">") for token in subject.split("."))


def covers(pattern: str, subject: str) -> bool:
    """Whether every message that `subject` (itself perhaps a pattern) stands for also matches
    `pattern`."""
    wanted, given = pattern.split("."), subject.split(".")
    for position, part in enumerate(wanted):
        if position == len(given):
            return False
        if part == ">":
            return True
        if given[position] == ">" or part not in ("*", given[position]):
            return False
    return len(wanted) == len(given)


def overlap(one: str, other: str) -> bool:
    """Whether some message matches both patterns."""
    ours, theirs = one.split("."), other.split(".")
    for our, their in zip(ours, theirs, strict=False):
        if ">" in (our, their):
            return True
        if "*" not in (our, their) and our != their:
            return False
    return len(ours) == len(theirs)


def subject_problem(subject: object) -> str | None:
    """Why NATS would refuse to filter by `subject`, or None."""
    if not isinstance(subject, str):
        return f"{subject!r} is not a string"
    if any(char.isspace() for char in subject):
        return f"{subject!r} contains a space"
    if _has_control(subject):
        return f"{subject!r} contains a control character"
    if len(subject.encode(errors="replace")) > _LONGEST:
        return f"{subject[:40]!r}... is longer than {_LONGEST} bytes"
    tokens = subject.split(".")
    if "" in tokens:
        return f"{subject!r} has an empty token"
    if ">" in tokens[:-1]:
        return f"{subject!r} has '>' before its end"
    return None


def _has_control(text: str) -> bool:
    return any(category(char) == "Cc" for char in text)
