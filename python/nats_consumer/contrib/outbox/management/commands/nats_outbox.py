"""manage.py nats_outbox: relay without consumers, and look after rows."""

import logging
import signal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.db.models import QuerySet
from django.db.models.functions import Now

from nats_consumer.command_line import Verbs, add_database
from nats_consumer.contrib.outbox.lag import lag
from nats_consumer.contrib.outbox.models import OutboxMessage
from nats_consumer.contrib.outbox.relay import relay_rows
from nats_consumer.contrib.outbox.run import databases, relays
from nats_consumer.contrib.outbox.status import holder
from nats_consumer.exceptions import NatsConsumerError
from nats_consumer.run import logs
from nats_consumer.run.wakeups import heard
from nats_consumer.terminal import visible

_LINES = 100


class Command(BaseCommand):
    """Ends with status 0, or 1 if something could not be done."""

    help = "Publish outbox messages, or list, retry and drop them."

    def add_arguments(self, parser: CommandParser) -> None:
        """One subcommand for each verb."""
        verbs = Verbs(parser, add_database)
        relay = verbs.add("relay", self._relay, "publish until SIGTERM or Ctrl-C")
        relay.add_argument("--once", action="store_true", help="publish what is there, then end")
        verbs.add("status", self._status, "how many messages wait, and for how long")
        listing = verbs.add("list", self._list, "one line for each message, in their order")
        listing.add_argument("--stuck", action="store_true", help="only those that were refused")
        retry = verbs.add("retry", self._retry, "try refused messages again now")
        drop = verbs.add("drop", self._drop, "delete messages that were not published")
        drop.add_argument(
            "--yes", action="store_true", help="delete; without it, only say how many"
        )
        for verb in (retry, drop):
            verb.add_argument(
                "ids", nargs="+", type=int, metavar="ID", help="the numbers that `list` shows"
            )

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the verb. Raises CommandError."""
        try:
            aliases = [options["database"]] if options["database"] else databases()
            if not aliases:
                raise CommandError(
                    "No database has the outbox's table. Run `manage.py migrate nats_outbox`."
                )
            options["run"](aliases, options)
        except (NatsConsumerError, Error) as error:
            raise CommandError(visible(str(error))) from error

    def _relay(self, aliases: list[str], options: dict[str, Any]) -> None:
        logs.make_visible(None)
        if options["once"]:
            for alias in aliases:
                self._relay_once(alias)
            return
        with heard([signal.SIGTERM, signal.SIGINT]) as next_signals, relays(aliases):
            logging.getLogger("nats_consumer.publish").info(
                "Outbox: publishing the rows of %s.", ", ".join(aliases)
            )
            while not next_signals(None):
                pass

    def _relay_once(self, alias: str) -> None:
        published = relay_rows(alias)
        if published is None:
            raise CommandError(f"{alias}: another relay holds the lease.")
        self.stdout.write(f"{alias}: published {published} messages.")

    def _status(self, aliases: list[str], options: dict[str, Any]) -> None:
        for alias in aliases:
            found = lag(alias)
            self.stdout.write(
                f"{alias}: {found.rows} waiting, the oldest for {found.oldest_seconds:.1f} s, "
                f"{found.stuck} refused. Relay: {holder(alias) or 'none runs'}."
            )

    def _list(self, aliases: list[str], options: dict[str, Any]) -> None:
        for alias in aliases:
            messages = OutboxMessage.objects.using(alias)
            if options["stuck"]:
                messages = messages.filter(attempts__gt=0)
            for each in messages.defer("payload")[:_LINES]:
                refused = f", refused {each.attempts} times: {each.error}" if each.attempts else ""
                since = f"{each.created_at:%Y-%m-%d %H:%M:%S}"
                self.stdout.write(
                    visible(f"{alias} {each.pk}  {since}  {each.subject} (key {each.key}){refused}")
                )
            if (left := messages.count() - _LINES) > 0:
                self.stdout.write(f"{alias}: ... and {left} more.")

    def _retry(self, aliases: list[str], options: dict[str, Any]) -> None:
        alias = _only(aliases)
        messages = OutboxMessage.objects.using(alias).filter(pk__in=options["ids"])
        # Another row with a time for its next try would hold up its key.
        refused = messages.filter(attempts__gt=0)
        missing = _missing(refused, options["ids"])
        if count := refused.update(next_attempt_at=Now()):
            self.stdout.write(f"{alias}: {count} are tried again within a second.")
        _complain(missing, "does not exist, or was not refused")

    def _drop(self, aliases: list[str], options: dict[str, Any]) -> None:
        alias = _only(aliases)
        messages = OutboxMessage.objects.using(alias).filter(pk__in=options["ids"])
        missing = _missing(messages, options["ids"])
        count = messages.count()
        if count and not options["yes"]:
            raise CommandError(f"Nothing was deleted. To delete {count}, add --yes.")
        if count:
            messages.delete()
            self.stdout.write(f"{alias}: deleted {count}. They were never published.")
        _complain(missing, "does not exist")


def _missing(messages: "QuerySet[OutboxMessage]", ids: list[int]) -> list[int]:
    """The ids that none of the messages has."""
    return sorted({*ids} - {*messages.values_list("pk", flat=True)})


def _complain(missing: list[int], problem: str) -> None:
    """Raises CommandError if an id is missing."""
    if missing:
        told = "; ".join(f"{each} {problem}" for each in missing)
        raise CommandError(f"{told}. Published messages are no longer in the outbox.")


def _only(aliases: list[str]) -> str:
    if len(aliases) > 1:
        raise CommandError(f"Name the database: --database {' or '.join(aliases)}.")
    return aliases[0]
