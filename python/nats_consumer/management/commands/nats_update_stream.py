"""manage.py nats_update_stream: change some fields of a stream and keep the others."""

from enum import StrEnum
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from nats_consumer import get_nats_client
from nats_consumer.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats_consumer.client.jetstream import merged
from nats_consumer.command_line import duration
from nats_consumer.connect.option import add_connection
from nats_consumer.connect.resolve import display_servers
from nats_consumer.exceptions import NatsConsumerError
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.names import check_name
from nats_consumer.streams.plan import stream_changes

_FIELDS = (
    "subjects",
    "max_msgs",
    "max_bytes",
    "max_age",
    "max_msg_size",
    "storage",
    "retention",
    "num_replicas",
    "discard",
    "duplicate_window",
)


class Command(BaseCommand):
    """Ends with status 0, or 1 if there is no such stream or the server refuses the change."""

    help = "Change the given fields of a JetStream stream and keep the others."

    def add_arguments(self, parser: CommandParser) -> None:
        """One option for each field, and the connection."""
        parser.add_argument("name", metavar="NAME", help="the stream")
        add_connection(parser)
        parser.add_argument("--subjects", nargs="+", help="all subjects of the stream")
        parser.add_argument(
            "--max-msgs", type=int, metavar="N", help="messages to keep; -1: no limit"
        )
        parser.add_argument(
            "--max-bytes", type=int, metavar="N", help="bytes to keep; -1: no limit"
        )
        parser.add_argument(
            "--max-age",
            type=duration,
            metavar="DURATION",
            help="how long to keep, such as 12h, 30d or a number of seconds; 0: without limit",
        )
        parser.add_argument(
            "--max-msg-size", type=int, metavar="N", help="bytes of one message; -1: no limit"
        )
        parser.add_argument(
            "--storage", choices=_values(StorageType), help="the server refuses to change it"
        )
        parser.add_argument(
            "--retention",
            choices=_values(RetentionPolicy),
            help="when messages are removed; the server refuses some changes",
        )
        parser.add_argument(
            "--replicas",
            type=int,
            dest="num_replicas",
            metavar="N",
            help="servers that store it, 1 to 5",
        )
        parser.add_argument(
            "--discard",
            choices=_values(DiscardPolicy),
            help="what a full stream does: drop the oldest message, or refuse the new one",
        )
        parser.add_argument(
            "--duplicate-window",
            type=duration,
            metavar="DURATION",
            help="how long a Nats-Msg-Id is remembered, such as 2m or a number of seconds",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Say what changes, then change it. Raises CommandError."""
        given = {name: options[name] for name in _FIELDS if options[name] is not None}
        if not given:
            raise CommandError("Nothing to change: give at least one option, such as --max-age.")
        try:
            name = check_name(options["name"], "NAME")
            wait_for(self._update(StreamConfig(name=name, **given), options["connection"]))
        except (NatsConsumerError, ValueError) as error:
            raise CommandError(str(error)) from error

    async def _update(self, config: StreamConfig, using: str) -> None:
        async with await get_nats_client(using=using) as client:
            self.stdout.write(f"Server: {display_servers(client.connected_url, using)}")
            jetstream = client.jetstream()
            present = (await jetstream.stream_info(str(config.name))).config
            before = present.as_dict()
            changes = list(stream_changes(before, merged(before, config.as_dict())))
            if not changes:
                self.stdout.write(f"Stream {config.name} is already up to date.")
                return
            self.stdout.write(f"Stream {config.name}:")
            for change in changes:
                self.stdout.write(f"  {change.field}: {change.before} -> {change.after}")
            await jetstream.update_stream(config)
            self.stdout.write(self.style.SUCCESS("Updated."))


def _values(policy: type[StrEnum]) -> list[str]:
    # argparse shows the repr() of each.
    return [each.value for each in policy]
