"""Writing rows, in the transaction of the caller."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from django.db import connections, router, transaction

from nats_consumer.exceptions import OutboxError, PayloadTooLarge
from nats_consumer.publish.drafts import MSG_ID, Draft, MsgId, checked_id
from nats_consumer.publish.publisher import current_publisher, note_held
from nats_consumer.publish.times import SCHEDULE, SCHEDULE_TARGET

from .models import OutboxMessage

# The default of a server's max_payload: https://docs.nats.io/running-a-nats-service/configuration
# It counts for a process that is not connected yet.
_MAX_PAYLOAD = 1 << 20
_AROUND_HEADERS = len("NATS/1.0\r\n\r\n")
_ANY_MSG_ID = str(UUID(int=0))
_MAX_KEY = 1024
_MAX_MSG_ID = 255
# Databases bound the parameters of a statement; SQLite at 999 in old versions, and a row has seven.
_ROWS_A_STATEMENT = 100
_COLUMNS = ("subject", "payload", "headers", "msg_id", "key", "attempts", "error")


def write(drafts: Sequence[tuple[Draft, MsgId | None]], using: str | None) -> None:
    """Insert a row for each draft and its key. Raises OutboxError if the rows would commit apart
    from the caller's data, PayloadTooLarge, and TypeError for a key of another type."""
    from nats_consumer import _native

    largest = current_publisher().max_payload() or _MAX_PAYLOAD
    for (subject, data, headers), _ in drafts:
        _native.check_draft((subject, data, headers))
        _check_size(subject, data, headers, largest)
    alias = _database(using)
    note_held(alias)
    rows = [_row(draft, key) for draft, key in drafts]
    for start in range(0, len(rows), _ROWS_A_STATEMENT):
        _insert(rows[start : start + _ROWS_A_STATEMENT], alias)
    connection = connections[alias]
    # Where a program commits by itself, Django has no hooks, and the relay looks once a second.
    if connection.in_atomic_block or connection.get_autocommit():
        _nudge_at_commit(alias)


def nudge_subject(alias: str) -> str:
    """Return the subject on which the relay of the database `alias` learns of new rows."""
    return f"_nats_consumer.outbox.{alias}"


@dataclass(frozen=True)
class Nudge:
    """Wakes the relay of the database `alias`, without waiting."""

    alias: str

    def __call__(self) -> None:
        current_publisher().nudge(nudge_subject(self.alias))


def _nudge_at_commit(alias: str) -> None:
    connection: Any = connections[alias]
    # One is enough, unless a savepoint that this row is not in takes it back.
    around, nudge = set(connection.savepoint_ids), Nudge(alias)
    if not any(hook == nudge and ids <= around for ids, hook, *_ in connection.run_on_commit):
        transaction.on_commit(nudge, using=alias, robust=True)


def _check_size(subject: str, data: bytes, headers: dict[str, str] | None, largest: int) -> None:
    lines = {MSG_ID: _ANY_MSG_ID} | (headers or {})
    if SCHEDULE in lines:
        lines[SCHEDULE_TARGET] = subject
    size = len(data) + _AROUND_HEADERS
    size += sum(len(f"{name}: {value}\r\n".encode()) for name, value in lines.items())
    if size > largest:
        raise PayloadTooLarge(
            f"The message for {subject} has {size} bytes, and the server takes at most {largest}. "
            "Store the data elsewhere and publish where it is."
        )


def _database(using: str | None) -> str:
    alias = using or router.db_for_write(OutboxMessage)
    if connections[alias].in_atomic_block:
        return alias
    others = [each.alias for each in connections.all(initialized_only=True) if each.in_atomic_block]
    if others:
        raise OutboxError(
            f"publish_on_commit() would write its row to the database {alias!r}, outside of the "
            f"transaction on {' and '.join(map(repr, others))}, so it could be published although "
            f"that is rolled back. Name the database of the transaction: using={others[0]!r}."
        )
    return alias


def _row(draft: Draft, key: MsgId | None) -> tuple[str | bytes | int, ...]:
    subject, data, headers = draft
    others = dict(headers or {})
    msg_id = others.pop(MSG_ID, "") or str(uuid4())
    if len(msg_id) > _MAX_MSG_ID:
        raise OutboxError(f"A msg_id in the outbox has at most {_MAX_MSG_ID} characters.")
    order = subject if key is None else _checked_key(key)
    if len(order) > _MAX_KEY or len(subject) > _MAX_KEY:
        raise OutboxError(f"A subject or key in the outbox has at most {_MAX_KEY} characters.")
    return subject, data, json.dumps(others) if others else "", msg_id, order, 0, ""


def _checked_key(key: MsgId) -> str:
    """The key as text. Raises TypeError or OutboxError for what a database would refuse within the
    caller's transaction, or keep as something else."""
    text = checked_id("key", key)
    has_half_a_character = text.encode(errors="replace").decode() != text
    if "\x00" in text or has_half_a_character:
        raise OutboxError(f"The key {text!r} has a character that a database cannot keep.")
    return text


def _insert(rows: list[tuple[str | bytes | int, ...]], alias: str) -> None:
    # One statement of our own: the ORM's create() takes twice the time, inside the request.
    connection: Any = connections[alias]
    quote = connection.ops.quote_name
    places = f"({', '.join(['%s'] * len(_COLUMNS))})"
    statement = (
        f"INSERT INTO {quote(OutboxMessage._meta.db_table)} "  # noqa: S608 - names of our own
        f"({', '.join(map(quote, _COLUMNS))}) VALUES {', '.join([places] * len(rows))}"
    )
    binary = connection.Database.Binary
    values = [binary(each) if isinstance(each, bytes) else each for row in rows for each in row]
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
