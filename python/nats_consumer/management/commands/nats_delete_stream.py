"""manage.py nats_delete_stream: delete a stream with all its messages."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from nats_consumer import get_nats_client
from nats_consumer.command_line import counted, is_wanted
from nats_consumer.connect.option import add_connection
from nats_consumer.connect.resolve import display_servers
from nats_consumer.exceptions import NatsConsumerError, StreamNotFound
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.names import check_name


class Command(BaseCommand):
    """Ends with status 0, or 1 if there is no such stream or confirmation was not possible."""

    help = "Delete a JetStream stream with all its messages and consumers."

    def add_arguments(self, parser: CommandParser) -> None:
        """The stream, its connection, and whether to ask."""
        parser.add_argument("name", metavar="NAME", help="the stream")
        add_connection(parser)
        parser.add_argument("--force", action="store_true", help="do not ask")

    def handle(self, *_: Any, **options: Any) -> None:
        """Say what goes, ask, and delete it. Raises CommandError."""
        try:
            name = check_name(options["name"], "NAME")
            wait_for(self._describe(name, options["connection"]))
            if not options["force"] and not is_wanted("Delete it for good?", otherwise="--force"):
                self.stdout.write("Nothing was deleted.")
                return
            wait_for(self._delete(name, options["connection"]))
        except StreamNotFound as error:
            raise CommandError(
                f"There is nothing to delete: stream {name!r} does not exist."
            ) from error
        except (NatsConsumerError, ValueError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(self.style.SUCCESS(f"Stream {name} is deleted."))

    async def _describe(self, name: str, using: str) -> None:
        async with await get_nats_client(using=using) as client:
            self.stdout.write(f"Server: {display_servers(client.connected_url, using)}")
            state = (await client.jetstream().stream_info(name)).state
            self.stdout.write(
                f"Stream {name} has {counted(state.messages, 'message')} "
                f"({counted(state.bytes, 'byte')}) and {counted(state.consumer_count, 'consumer')}."
            )

    async def _delete(self, name: str, using: str) -> None:
        async with await get_nats_client(using=using) as client:
            await client.jetstream().delete_stream(name)
