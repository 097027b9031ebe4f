"""Filters: the subjects that a consumer asks for."""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

from nats_consumer.exceptions import ConfigurationError
from nats_consumer.names import covers, overlap
from nats_consumer.payloads.event import subject_text
from nats_consumer.templates import pattern_of

from .declaration import Declared, class_of, is_overridden


def filter_of(consumer: Declared) -> list[str]:
    """The subjects that the consumer asks for: those of its get_filter_subject() if it overrides
    that, otherwise its filter, or the first of its subjects. Raises ConfigurationError if it names
    none."""
    return _checked_filters(filter_texts(consumer))


def declared_filter(consumer: Declared) -> list[str]:
    """The same by the attributes alone."""
    return _checked_filters(_declared_texts(consumer))


def filter_texts(consumer: Declared) -> list[Any]:
    """The same as they are written, with names in braces or as event classes, and not checked."""
    if not is_overridden(consumer, "get_filter_subject"):
        return _declared_texts(consumer)
    if isinstance(consumer, type):
        return [">"]  # for now: only an instance can say
    return [consumer.get_filter_subject()]


def _declared_texts(consumer: Declared) -> list[Any]:
    if consumer.filter_subject and consumer.filter_subjects:
        raise ConfigurationError("it sets both filter_subject and filter_subjects. Keep one.")
    if consumer.filter_subject:
        return [consumer.filter_subject]
    filters = _subjects(consumer, "filter_subjects") or _subjects(consumer, "subjects")[:1]
    if not filters:
        raise ConfigurationError(
            "it does not say what to consume. Set filter_subject (such as 'orders.*', or '>' for "
            "the whole stream) or subjects."
        )
    return filters


def _checked_filters(texts: list[Any]) -> list[str]:
    filters, problems = [], []
    for text in texts:
        try:
            filters.append(pattern_of(subject_text(text)))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ConfigurationError(f"it cannot use this filter: {'; '.join(problems)}.")
    for one, other in combinations(filters, 2):
        if overlap(one, other):
            raise ConfigurationError(
                f"its filter_subjects {one!r} and {other!r} overlap, which the server refuses. "
                "Keep the wider one, or use one consumer for each."
            )
    return filters


def subjects_left_out(consumer: Declared) -> list[str]:
    """The subjects that will not arrive because, without a filter, only the first one does."""
    if consumer.filter_subject or consumer.filter_subjects:
        return []
    if is_overridden(consumer, "get_filter_subject"):
        return []
    subjects = _subjects(consumer, "subjects")
    first, *others = [*map(loose_pattern, subjects)] or [""]
    return [
        text
        for text, pattern in zip(subjects[1:], others, strict=True)
        if not covers(first, pattern)
    ]


def loose_pattern(subject: str) -> str:
    """Return the pattern that the subject means; the subject itself, if it is none."""
    try:
        return pattern_of(subject)
    except ValueError:
        return subject


def left_out_message(consumer: Declared) -> str | None:
    """Return a message about the subjects that will not arrive, or None if all will."""
    left_out = subjects_left_out(consumer)
    if not left_out:
        return None
    return (
        f"{class_of(consumer).__name__} has no filter, so it receives only "
        f"{consumer.subjects[0]!r}. These subjects do not arrive: {', '.join(left_out)}. Set "
        "filter_subject (such as 'orders.*') or filter_subjects."
    )


def _subjects(consumer: Declared, attribute: str) -> list[Any]:
    value = getattr(consumer, attribute) or ()
    if isinstance(value, str):
        raise ConfigurationError(f"{attribute} must be a list of subjects, not the text {value!r}.")
    if not isinstance(value, Iterable):
        raise ConfigurationError(f"{attribute} must be a list of subjects, not {value!r}.")
    return list(value)
