"""Changes in Django's log of the admin. Without an entry, nothing is changed."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest

from .models import Fleet


class Record:
    """The entry of a change: first says what is begun, then what was done."""

    def __init__(self, entry: LogEntry) -> None:
        self._entry = entry

    def say(self, text: str) -> None:
        """Replace the text of the entry."""
        self._entry.change_message = text
        self._entry.save(update_fields=["change_message"])


@contextmanager
def recorded(
    request: HttpRequest, subject: str, doing: str, *, deletes: bool = False
) -> Iterator[Record]:
    """An entry for what the body does. It is written before, so that a process that ends in between
    leaves it behind."""
    entry = LogEntry.objects.create(
        user_id=request.user.pk,
        content_type=ContentType.objects.get_for_model(Fleet),
        object_id=subject,
        object_repr=subject[:200],
        action_flag=DELETION if deletes else CHANGE,
        change_message=f"{doing}: begun.",
    )
    record = Record(entry)
    try:
        yield record
    except Exception as error:
        record.say(f"{entry.change_message} Failed: {error}")
        raise
