"""manage.py nats_plan: show what --setup and the start of the workers would change."""

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from nats_consumer.command_line import PrintingCommand, add_consumers
from nats_consumer.connect.option import add_connection_or_any
from nats_consumer.exceptions import NatsConsumerError
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.operate.plans import plans
from nats_consumer.operate.show import changes_anything, json_of, lines_of
from nats_consumer.terminal import visible


class Command(PrintingCommand):
    """Ends with status 0, or 1 if it could not look, or with --check if something would change."""

    help = "Show how streams and durables on the server differ from what the project declares."

    def add_arguments(self, parser: CommandParser) -> None:
        """The consumers, their connection, and the form of the answer."""
        add_consumers(parser)
        add_connection_or_any(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument("--check", action="store_true", help="fail if something would change")

    def handle(self, *_: Any, **options: Any) -> None:
        """Look and print. Raises CommandError."""
        try:
            made = wait_for(plans(options["names"], options["connection"]))
        except (NatsConsumerError, ValueError) as error:
            raise CommandError(visible(str(error))) from error
        if options["json"]:
            self.stdout.write(json.dumps(json_of(made), indent=2))
        else:
            for plan in made:
                for line in lines_of(plan):
                    self.stdout.write(visible(line))
        if options["check"] and changes_anything(made):
            raise CommandError(
                "The server is not as declared. Run nats_apply, or start with --setup."
            )
