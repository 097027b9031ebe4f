"""One transaction for "this message is handled" and all that its handler writes."""

import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any

from django.db import connections, router, transaction
from django.db.models.constants import OnConflict

from nats_consumer import lanes
from nats_consumer.lanes.unfinished import check_finished
from nats_consumer.outcomes import Ack, DeadLetter, Drop, Outcome, Retry, as_outcome, raised_outcome
from nats_consumer.terminal import visible

from .models import InboxMessage

logger = logging.getLogger("nats_consumer.handler")

_COLUMNS = ("key", "consumer", "stream", "subject", "identity", "sequence")
_PLACES = f"({', '.join(['%s'] * len(_COLUMNS))})"
_LONGEST = 255
# Rows of one statement, and its parameters where a database names no limit.
_MOST_ROWS, _MOST_PARAMS = 1000, 30_000
# The state of a PostgreSQL transaction in which a statement failed; psycopg and psycopg2 both call
# it INERROR. A commit is a rollback then, without an error.
_ABORTED = 3

# The message whose transaction is open here, and its database.
_open: ContextVar[tuple[Any, str] | None] = ContextVar("nats_consumer_inbox", default=None)


def inbox_database() -> str:
    """The alias of the database that Django's routers name for the inbox."""
    return str(router.db_for_write(InboxMessage))


def handle(
    message: Any, handler: Callable[[Any], Any], *, identity: str, using: str, part: str = ""
) -> Any:
    """Call the handler with the message, in a transaction on the database `using` that also notes
    that the message is handled. If that is noted already, return None and call nothing.

    Ack and Drop commit, returned or raised. Retry, DeadLetter and errors roll back, and are raised
    here. `part` names the one of several handlers of the durable. Raises what the database raises,
    such as an error at the commit."""
    if part and _open.get() == (message, using):
        return handler(message)  # its consumer is idempotent
    with transaction.atomic(using=using):
        if not note(message, identity, using, part):
            logger.debug(
                "The message %s of %s was handled before.",
                visible(identity),
                visible(message.subject),
            )
            return None
        answer, ending = _call(message, handler, using)
        _refuse_broken(using)
    if ending is not None:
        # Another one than the handler's, which remembers that it was raised in a transaction.
        raise Ack() if isinstance(ending, Ack) else ending
    return answer


def handle_batch(
    messages: Sequence[tuple[Any, str]],
    handler: Callable[[set[Any]], dict[Any, Any]],
    *,
    using: str,
) -> dict[Any, Any]:
    """Call the handler with those of the messages, each with its identity, that were not handled
    before, in a transaction on the database `using` that also notes that they are handled. Return
    how they ended, as the handler does.

    A message that the handler names with another outcome than Ack and Drop is not noted. What the
    handler raises rolls back, and is raised here. Raises what the database raises."""
    with transaction.atomic(using=using):
        new = note_all(messages, using)
        if len(new) < len(messages):
            logger.debug("%d messages were handled before.", len(messages) - len(new))
        if not new:
            return {}
        endings = _call_with_all(list(new.values()), handler)
        _refuse_broken(using)
        again = [key for key, message in new.items() if not _is_done(endings.get(message))]
        if again:
            InboxMessage.objects.using(using).filter(key__in=again).delete()
    return endings


def _call_with_all(
    messages: Sequence[Any], handler: Callable[[set[Any]], dict[Any, Any]]
) -> dict[Any, Any]:
    for message in messages:
        message._keep_open(True)
    try:
        return handler(set(messages))
    finally:
        for message in messages:
            message._keep_open(False)


def _is_done(ending: object) -> bool:
    return ending is None or isinstance(ending, Ack | Drop)


def note(message: Any, identity: str, using: str, part: str = "") -> bool:
    """Write that the message is handled; False if that is known already. Where another
    transaction has just written it, wait for its end."""
    with connections[using].cursor() as cursor:
        cursor.execute(_statement(using), _row(message, identity, part))
        return bool(cursor.rowcount == 1)


def note_all(messages: Sequence[tuple[Any, str]], using: str) -> dict[str, Any]:
    """Write that the messages, each with its identity, are handled. Return those for which that
    was not known, by the keys of their rows."""
    rows: dict[str, tuple[Any, tuple[Any, ...]]] = {}
    for message, identity in messages:
        row = _row(message, identity)
        rows.setdefault(row[0], (message, row))
    # In one order, or two batches would wait for each other.
    new = _insert([row for _, row in sorted(rows.values(), key=lambda each: each[1][0])], using)
    return {key: message for key, (message, _) in rows.items() if key in new}


def _insert(rows: Sequence[tuple[Any, ...]], using: str) -> set[str]:
    """Insert the rows whose keys are not known; return these keys."""
    features: Any = connections[using].features
    returns = features.can_return_rows_from_bulk_insert
    most = min(_MOST_ROWS, (features.max_query_params or _MOST_PARAMS) // len(_COLUMNS))
    size = most if returns else 1
    new: set[str] = set()
    with connections[using].cursor() as cursor:
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            cursor.execute(
                _statement(using, len(part), returns=returns),
                [each for row in part for each in row],
            )
            if returns:
                new.update(key for (key,) in cursor.fetchall())
            elif cursor.rowcount == 1:
                new.add(part[0][0])
    return new


def _row(message: Any, identity: str, part: str = "") -> tuple[Any, ...]:
    """The values of the columns."""
    place = message.metadata
    names = (place.consumer, place.stream, message.subject, identity, part)
    return (
        blake2b(repr(names).encode(), digest_size=32).hexdigest(),
        place.consumer[:_LONGEST],
        place.stream[:_LONGEST],
        message.subject[:_LONGEST],
        identity[:_LONGEST],
        place.sequence.stream,
    )


def _statement(using: str, rows: int = 1, *, returns: bool = False) -> str:
    # Of our own: get_or_create() takes three statements and a savepoint.
    operations: Any = connections[using].ops
    quote = operations.quote_name
    ignore = OnConflict.IGNORE
    suffix = operations.on_conflict_suffix_sql([], ignore, [], ["key"])
    if returns:
        suffix += f" RETURNING {quote('key')}"
    return (
        f"{operations.insert_statement(on_conflict=ignore)} "
        f"{quote(InboxMessage._meta.db_table)} ({', '.join(map(quote, _COLUMNS))}) "
        f"VALUES {', '.join([_PLACES] * rows)} {suffix}"
    )


def _call(message: Any, handler: Callable[[Any], Any], using: str) -> tuple[Any, Outcome | None]:
    """Return the handler's answer, or the outcome that it raised, if either is to be committed.
    Raise everything else."""
    token = _open.set((message, using))
    message._keep_open(True)
    try:
        answer = lanes.finish(handler(message))
    except BaseException as error:
        raised = raised_outcome(error)
        if raised is None or isinstance(raised, Retry | DeadLetter):
            raise
        return None, raised
    finally:
        message._keep_open(False)
        _open.reset(token)
    outcome = as_outcome(answer)
    if isinstance(outcome, Retry | DeadLetter):
        raise outcome
    if outcome is None:
        check_finished(answer)
    return answer, None


def _refuse_broken(using: str) -> None:
    """Raises TransactionManagementError where a commit would roll back without saying so."""
    connection: Any = connections[using]
    is_aborted = (
        connection.vendor == "postgresql"
        and connection.connection.info.transaction_status == _ABORTED
    )
    if connection.needs_rollback or is_aborted:
        raise transaction.TransactionManagementError(
            "The handler caught a database error that ended its transaction, so nothing of its "
            "work can be kept. Put what may fail into a `with transaction.atomic():` of its own."
        )
