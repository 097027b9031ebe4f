"""`ephemeral = True`: each process has a durable of its own, which is gone after it."""

from collections.abc import Callable

from nats_consumer import publish
from tests.live.support.project import Project
from tests.live.support.streams import add_stream
from tests.servers import NatsServer
from tests.waiting import eventually

CONSUMERS = """
from nats_consumer import JetstreamPullConsumer

class Prices(JetstreamPullConsumer):
    stream_name = "{stream}"
    filter_subject = "{stream}.>"
    ephemeral = True

    def handle_message(self, message):
        print("got", message.data.decode())
"""


def durables(server: NatsServer, stream: str) -> list[str]:
    return [each["name"] for each in server.stream(stream).get("consumer_detail") or []]


def test_each_process_gets_what_is_new_and_nothing_is_left_behind(
    connected: None,
    nats_server: NatsServer,
    make_project: Callable[..., Project],
    fresh: Callable[[str], str],
) -> None:
    stream = fresh("prices")
    add_stream(stream)
    publish(f"{stream}.changed", b"before")
    project = make_project(CONSUMERS.format(stream=stream))
    workers = [project.consume(), project.consume()]
    for worker in workers:
        worker.wait_for("Prices: consuming")
    names = durables(nats_server, stream)
    assert len(set(names)) == 2
    assert all(name.startswith("Prices-") for name in names)
    publish(f"{stream}.changed", b"after")
    for worker in workers:
        worker.wait_for("got after")
        worker.interrupt()
    for worker in workers:
        assert worker.finish() == 0, worker.output
        assert "got before" not in worker.output
    eventually(lambda: durables(nats_server, stream) == [])
