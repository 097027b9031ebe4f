"""manage.py nats_inbox: look after the messages that were handled."""

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.db.models import Count, Min
from django.db.models.functions import Now

from nats_consumer.command_line import Verbs, add_database, age
from nats_consumer.contrib.inbox.clean import clean
from nats_consumer.contrib.inbox.consumer import databases
from nats_consumer.contrib.inbox.models import InboxMessage
from nats_consumer.exceptions import NatsConsumerError, Unreachable
from nats_consumer.terminal import visible


class Command(BaseCommand):
    """Ends with status 0, or 1 if something could not be done."""

    help = "Show, clean and forget the messages that idempotent consumers have handled."

    def add_arguments(self, parser: CommandParser) -> None:
        """One subcommand for each verb."""
        verbs = Verbs(parser, add_database)
        verbs.add("status", self._status, "how many messages each durable has handled")
        verbs.add(
            "clean",
            self._clean,
            "delete old rows of messages that are settled, as the NATS server says",
        )
        forget = verbs.add("forget", self._forget, "let messages be handled again")
        forget.add_argument("--consumer", required=True, help="the durable")
        forget.add_argument("--identity", help="only the message with this id")
        forget.add_argument(
            "--newer-than", type=age, metavar="AGE", help="only those handled since then, as in 2h"
        )
        forget.add_argument(
            "--yes", action="store_true", help="delete; without it, only say how many"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the verb. Raises CommandError."""
        try:
            aliases = [options["database"]] if options["database"] else databases()
            if not aliases:
                raise CommandError(
                    "No database has the inbox's table. Run `manage.py migrate nats_inbox`."
                )
            for alias in aliases:
                options["run"](alias, options)
        except (NatsConsumerError, Error) as error:
            raise CommandError(visible(str(error))) from error

    def _status(self, alias: str, options: dict[str, Any]) -> None:
        rows = InboxMessage.objects.using(alias).order_by("stream", "consumer")
        groups = rows.values("stream", "consumer").annotate(
            count=Count("pk"), since=Min("handled_at")
        )
        for each in groups:
            self.stdout.write(
                visible(
                    f"{alias}: {each['count']} messages of {each['stream']} handled by "
                    f"{each['consumer']}, the oldest at {each['since']:%Y-%m-%d %H:%M:%S}."
                )
            )
        if not groups:
            self.stdout.write(f"{alias}: no messages.")

    def _clean(self, alias: str, options: dict[str, Any]) -> None:
        try:
            count = clean(alias)
        except Unreachable as error:
            raise CommandError(
                visible(
                    f"{alias}: only the server knows which messages are settled, so rows stay "
                    f"until it can be asked. {error}"
                )
            ) from error
        self.stdout.write(f"{alias}: deleted {count}.")

    def _forget(self, alias: str, options: dict[str, Any]) -> None:
        rows = InboxMessage.objects.using(alias).filter(consumer=options["consumer"])
        if options["identity"] is not None:
            rows = rows.filter(identity=options["identity"])
        if options["newer_than"] is not None:
            rows = rows.filter(handled_at__gt=Now() - timedelta(seconds=options["newer_than"]))
        count = rows.count()
        if not options["yes"]:
            raise CommandError(f"{alias}: nothing was forgotten. To forget {count}, add --yes.")
        rows.delete()
        self.stdout.write(
            f"{alias}: forgot {count}. They are handled again if they are delivered again."
        )
