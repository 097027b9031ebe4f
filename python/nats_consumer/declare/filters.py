"""Filters: the subjects that a consumer asks for."""

from collections.abc import Iterable
from itertools import combinations

from nats_consumer.exceptions import ConfigurationError
from nats_consumer.names import covers, overlap, subject_problem

from .declaration import Declared, class_of, is_overridden


def filter_of(consumer: Declared) -> list[str]:
    """The subjects that the consumer asks for: those of its get_filter_subject() if it overrides
    that, otherwise its filter, or the first of its subjects. Raises ConfigurationError if it names
    none."""
    if not is_overridden(consumer, "get_filter_subject"):
        return declared_filter(consumer)
    if isinstance(consumer, type):
        return [">"]  # for now: only an instance can say
    return _checked_filters([consumer.get_filter_subject()])


def declared_filter(consumer: Declared) -> list[str]:
    """The same by the attributes alone."""
    if consumer.filter_subject and consumer.filter_subjects:
        raise ConfigurationError("it sets both filter_subject and filter_subjects. Keep one.")
    if consumer.filter_subject:
        return _checked_filters([consumer.filter_subject])
    filters = _subjects(consumer, "filter_subjects") or _subjects(consumer, "subjects")[:1]
    if not filters:
        raise ConfigurationError(
            "it does not say what to consume. Set filter_subject (such as 'orders.*', or '>' for "
            "the whole stream) or subjects."
        )
    return _checked_filters(filters)


def _checked_filters(filters: list[str]) -> list[str]:
    problems = [problem for problem in map(subject_problem, filters) if problem]
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
    return [subject for subject in subjects[1:] if not covers(subjects[0], subject)]


def left_out_message(consumer: Declared) -> str | None:
    """What to say of the subjects that will not arrive; None if all will."""
    left_out = subjects_left_out(consumer)
    if not left_out:
        return None
    return (
        f"{class_of(consumer).__name__} has no filter, so it receives only "
        f"{consumer.subjects[0]!r}. These subjects do not arrive: {', '.join(left_out)}. Set "
        "filter_subject (such as 'orders.*') or filter_subjects."
    )


def _subjects(consumer: Declared, attribute: str) -> list[str]:
    value = getattr(consumer, attribute) or ()
    if isinstance(value, str):
        raise ConfigurationError(f"{attribute} must be a list of subjects, not the text {value!r}.")
    if not isinstance(value, Iterable):
        raise ConfigurationError(f"{attribute} must be a list of subjects, not {value!r}.")
    return list(value)
