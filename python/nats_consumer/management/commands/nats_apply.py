"""manage.py nats_apply: create and change streams and durables before the workers start."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from nats_consumer.command_line import PrintingCommand, add_consumers, is_wanted
from nats_consumer.connect.option import add_connection_or_any
from nats_consumer.exceptions import NatsConsumerError
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.operate.plans import ServerPlan, apply, plans
from nats_consumer.operate.show import lines_of
from nats_consumer.streams.plan import Mark
from nats_consumer.terminal import visible


class Command(PrintingCommand):
    """Ends with status 0, or 1 if something that should change could not be or was not changed."""

    help = "Create and change streams and durables, as --setup and the workers would."

    def add_arguments(self, parser: CommandParser) -> None:
        """The consumers, their connection, and what may be done."""
        add_consumers(parser)
        add_connection_or_any(parser)
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument(
            "--allow-data-loss",
            action="store_true",
            help="also make changes that delete or skip messages",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Show the plan, ask, and do it. Raises CommandError."""
        names = options["names"]
        try:
            made = wait_for(plans(names, options["connection"]))
            for line in (line for plan in made for line in lines_of(plan)):
                self._say(line)
            self._apply(made, options)
        except (NatsConsumerError, ValueError) as error:
            raise CommandError(visible(str(error))) from error

    def _apply(self, made: list[ServerPlan], options: dict[str, Any]) -> None:
        allowed = {Mark.CREATE, Mark.CHANGE}
        if options["allow_data_loss"]:
            allowed.add(Mark.LOSE)
        objects = [each for plan in made for each in plan.objects]
        if any(each.mark in allowed for each in objects):
            if not options["yes"] and not is_wanted("Do it?", otherwise="--yes"):
                self._say("Nothing was changed.")
                return
            for plan in made:
                wait_for(self._do(plan, options["names"], allowed))
        self._complain([each.mark for each in objects], allowed)

    async def _do(self, plan: ServerPlan, names: list[str], allowed: set[Mark]) -> None:
        async for each in apply(plan, names, allowed):
            done = "created" if each.mark == Mark.CREATE else "changed"
            self._say(f"The {each.kind} {each.name} is {done}.")

    def _complain(self, marks: list[Mark], allowed: set[Mark]) -> None:
        left = []
        if Mark.LOSE in marks and Mark.LOSE not in allowed:
            left.append(
                "Changes that delete or skip messages were left out. Add --allow-data-loss to make "
                "them."
            )
        if Mark.STUCK in marks:
            left.append("Objects marked x cannot be made as declared.")
        if left:
            raise CommandError(" ".join(left))

    def _say(self, text: str) -> None:
        self.stdout.write(visible(text))
