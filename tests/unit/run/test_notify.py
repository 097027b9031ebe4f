"""The messages to a process manager that does not listen."""

import socket
from pathlib import Path

from nats_consumer.run.notify import Manager


def test_a_manager_that_reads_nothing_does_not_stop_the_worker(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(address)
        fill(address)
        Manager({"NOTIFY_SOCKET": address}).ready("Consuming.")


def fill(address: str) -> None:
    """Send what nobody reads, until no more fits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            while True:
                sender.sendto(b"STATUS=unread", address)
        except BlockingIOError:
            return
