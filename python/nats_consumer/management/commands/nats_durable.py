"""manage.py nats_durable: list, pause, resume, reset, move and delete durables."""

from argparse import ArgumentTypeError
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.apps import apps
from django.core.management.base import CommandError, CommandParser
from django.utils.timezone import is_naive, make_aware

from nats_consumer import get_nats_client
from nats_consumer.client import Client
from nats_consumer.command_line import PrintingCommand, Verbs, age, counted, is_wanted, positive
from nats_consumer.connect.option import add_connection_or_any
from nats_consumer.connect.resolve import display_servers
from nats_consumer.exceptions import Denied, NatsConsumerError, NotPossible, Unreachable
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.operate import durables
from nats_consumer.operate.declared import Durable, chosen_durables
from nats_consumer.operate.listing import HEADING, listed, row
from nats_consumer.terminal import table, visible

# It may return a remark, which is printed once for all durables.
_Act = Callable[[Client, Durable, dict[str, Any]], Awaitable[str | None]]

_HOUR = 3600.0


class Command(PrintingCommand):
    """Ends with status 0, or 1 if something could not be done."""

    help = "List, pause, resume, reset, move or delete durables: the positions of consumers."

    def add_arguments(self, parser: CommandParser) -> None:
        """One subcommand for each verb."""
        verbs = Verbs(parser, add_connection_or_any)
        verbs.add("list", self._list, "the durables of the project's streams, declared or not")
        pause = self._add(verbs, "pause", self._pause, "deliver nothing until a time")
        end = pause.add_mutually_exclusive_group()
        end.add_argument(
            "--for",
            dest="seconds",
            type=age,
            default=_HOUR,
            metavar="AGE",
            help="how long, such as 90s, 15m, 12h or 7d (default: 1h)",
        )
        end.add_argument("--until", type=_time, metavar="TIME", help=f"until when, {_EXAMPLE}")
        self._add(verbs, "resume", self._resume, "end a pause")
        self._add(
            verbs, "reset", self._reset, "deliver unsettled messages again, as first attempts"
        )
        seek = self._add(verbs, "seek", self._seek, "continue elsewhere in the stream")
        where = seek.add_mutually_exclusive_group(required=True)
        where.add_argument("--to-sequence", type=positive, metavar="N", help="from this message on")
        where.add_argument(
            "--to-time", type=_time, metavar="TIME", help=f"from this time on, {_EXAMPLE}"
        )
        where.add_argument(
            "--to-end", action="store_true", help="skip everything that the stream holds"
        )
        delete = self._add(verbs, "delete", self._delete, "delete the durable with its position")
        delete.add_argument("--force", action="store_true", help="even if somebody reads from it")
        for verb in (seek, delete):
            verb.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the verb. Raises CommandError."""
        try:
            options["run"](options)
        except (NatsConsumerError, ValueError) as error:
            raise CommandError(visible(str(error))) from error

    def _add(self, verbs: Verbs, name: str, act: _Act, help: str) -> CommandParser:  # noqa: A002
        verb = verbs.add(name, lambda options: self._each(act, options), help)
        verb.add_argument(
            "names", nargs="*", metavar="NAME", help="consumer classes, or STREAM/DURABLE"
        )
        verb.add_argument("--all", action="store_true", help="the durables of all consumer classes")
        return verb

    def _list(self, options: dict[str, Any]) -> None:
        for connection, streams in wait_for(listed(options["connection"])).items():
            self._say(f"Server: {connection}")
            for stream, found in streams.items():
                self._say(f"\n{stream}: {counted(len(found), 'durable')}")
                for line in table(HEADING, [row(each) for each in found]):
                    self._say(f"  {line}")
            self._say("")

    def _each(self, act: _Act, options: dict[str, Any]) -> None:
        chosen = chosen_durables(
            options["names"], all_declared=options["all"], using=options["connection"]
        )
        by_connection: dict[str, list[Durable]] = defaultdict(list)
        for durable in chosen:
            by_connection[durable.connection].append(durable)
        failed = sum(
            wait_for(self._on(connection, found, act, options))
            for connection, found in by_connection.items()
        )
        if failed:
            raise CommandError(f"Not done for {failed} of {counted(len(chosen), 'durable')}.")

    async def _on(
        self, connection: str, found: list[Durable], act: _Act, options: dict[str, Any]
    ) -> int:
        """Act on the durables of one connection; return how many failed."""
        failed, remarks = 0, set[str | None]()
        async with await get_nats_client(using=connection) as client:
            self._say(f"Server: {display_servers(client.connected_url, connection)}")
            for durable in found:
                try:
                    remarks.add(await act(client, durable, options))
                except NatsConsumerError as error:
                    is_away = isinstance(error, Unreachable) and not isinstance(error, Denied)
                    if is_away:
                        raise
                    failed += 1
                    self.stderr.write(visible(f"{durable}: {error}"))
        for remark in filter(None, remarks):
            self._say(remark)
        return failed

    async def _pause(self, client: Client, durable: Durable, options: dict[str, Any]) -> str:
        until = options["until"] or datetime.now(UTC) + timedelta(seconds=options["seconds"])
        until = await durables.pause(client, durable, until)
        self._say(f"{durable}: paused until {durables.written(until)}.")
        return (
            "Until then nothing is delivered, not even retries. Messages that were delivered "
            "already are handled. End the pause with `nats_durable resume`."
        )

    async def _resume(self, client: Client, durable: Durable, _: dict[str, Any]) -> None:
        try:
            await durables.resume(client, durable)
        except NotPossible:
            # Then it is as asked for, and a script may ask twice.
            self._say(f"{durable}: not paused.")
        else:
            self._say(f"{durable}: resumed.")

    async def _reset(self, client: Client, durable: Durable, _: dict[str, Any]) -> str:
        info = await durables.reset(client, durable)
        self._say(f"{durable}: reset. {counted(info.num_pending, 'message')} to deliver.")
        return (
            "Messages that were delivered and not settled come again, as first attempts. Handlers "
            "that still run on them are not stopped."
        )

    async def _seek(self, client: Client, durable: Durable, options: dict[str, Any]) -> None:
        sequence = await _sequence(client, durable, options)
        planned = await durables.planned_seek(client, durable, sequence)
        self._say(
            f"{durable}: to continue with message {sequence}. At most "
            f"{counted(planned.again, 'message')} come again, and at most "
            f"{counted(planned.skipped, 'message')} are skipped."
        )
        if planned.again and apps.is_installed("nats_consumer.contrib.inbox"):
            self._say(
                "An idempotent handler skips what it has handled. To have it handled again, run "
                f"`manage.py nats_inbox forget --consumer {durable.name} --newer-than AGE` first."
            )
        if not self._may(options, f"Move {durable}?"):
            return
        info = await durables.seek(client, durable, sequence)
        self._say(f"{durable}: moved. {counted(info.num_pending, 'message')} to deliver.")

    async def _delete(self, client: Client, durable: Durable, options: dict[str, Any]) -> None:
        info = await client.jetstream().consumer_info(durable.stream, durable.name)
        if not options["force"] and await durables.is_read(client, durable, info):
            raise NotPossible(
                "Somebody reads from it, and a worker would create it again at once. Stop its "
                "workers first, or add --force."
            )
        self._say(
            f"{durable}: {counted(info.num_pending, 'message')} not delivered yet, "
            f"{info.num_ack_pending} not settled. Its position is lost."
        )
        if not self._may(options, f"Delete {durable}?"):
            return
        await durables.delete(client, durable)
        self._say(f"{durable}: deleted.")

    def _may(self, options: dict[str, Any], question: str) -> bool:
        if options["yes"] or is_wanted(question, otherwise="--yes"):
            return True
        self._say("Nothing was done.")
        return False

    def _say(self, text: str) -> None:
        self.stdout.write(visible(text))


_EXAMPLE = "such as 2026-11-30T08:00 (in TIME_ZONE) or 2026-11-30T08:00Z"


def _time(text: str) -> datetime:
    """Read a time for argparse."""
    try:
        read = datetime.fromisoformat(text)
        return (make_aware(read) if is_naive(read) else read).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(f"{text!r} is not a time: write one {_EXAMPLE}") from None


async def _sequence(client: Client, durable: Durable, options: dict[str, Any]) -> int:
    if options["to_end"]:
        return await durables.end_of(client, durable)
    if options["to_time"]:
        return await durables.sequence_at(client, durable, options["to_time"])
    sequence: int = options["to_sequence"]
    return sequence
