"""A hundred thousand dead letters are searched, listed and replayed."""

import io
from collections.abc import Callable

import pytest
from django.core.management import call_command
from pytest_django import Settings

from nats_consumer import Outgoing, publish_many
from tests.live.support.streams import add_stream
from tests.servers import NatsServer

LETTERS = 100_000
# One of a thousand has the reason that is searched for.
RARE = 1_000


def dlq(*arguments: str) -> list[str]:
    """Run the command and return the lines that it prints for letters with the rare reason."""
    output = io.StringIO()
    call_command("nats_dlq", *arguments, stdout=output, stderr=output)
    return [line for line in output.getvalue().splitlines() if "rare" in line]


@pytest.fixture
def letters(settings: Settings, nats_server: NatsServer, fresh: Callable[[str], str]) -> str:
    """A stream that has given up on many messages."""
    settings.NATS_CONSUMER = {"connect_args": {"servers": [nats_server.url]}}
    name = fresh("many")
    add_stream(name)
    add_stream(f"{name}-dlq", subjects=[f"dlq.{name}.>"])
    publish_many([letter(name, number) for number in range(1, LETTERS + 1)], timeout=60)
    return name


def letter(stream: str, number: int) -> Outgoing:
    """The dead letter as the engine stores it."""
    headers = {
        "Dlq-Reason": "rare" if number % RARE == 0 else "often",
        "Dlq-Subject": f"{stream}.created",
        "Dlq-Stream": stream,
        "Dlq-Sequence": str(number),
        "Dlq-Consumer": "Orders",
    }
    return Outgoing(f"dlq.{stream}.Orders", b"{}", headers=headers)


def test_rare_ones_of_many_are_found_from_both_ends_and_replayed(
    letters: str, nats_server: NatsServer
) -> None:
    found = dlq("list", letters, "--reason", "rare", "--limit", str(LETTERS))
    assert [int(line.split()[0]) for line in found] == list(range(RARE, LETTERS + 1, RARE))
    newest = dlq("list", letters, "--newest", "--reason", "rare", "--limit", "2")
    assert [int(line.split()[0]) for line in newest] == [LETTERS, LETTERS - RARE]
    dlq("replay", "--stream", letters, "--reason", "rare")
    assert nats_server.stream(letters)["state"]["messages"] == LETTERS // RARE
    assert nats_server.stream(f"{letters}-dlq")["state"]["messages"] == LETTERS - LETTERS // RARE
