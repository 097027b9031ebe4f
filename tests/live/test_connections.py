"""Two NATS systems in one project: consumers, publishing, operations and commands find theirs."""

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from nats_consumer import (
    Outgoing,
    apublish,
    apublish_many,
    arequest,
    get_nats_client,
    operations,
    publish,
    publish_many,
    publish_many_on_commit,
    publish_on_commit,
    request,
)
from nats_consumer.dead_letters import Selection, dead_letters
from nats_consumer.exceptions import ConfigurationError, Denied, NoStreamResponse, StreamMismatch
from tests.command import Command
from tests.live.support.probes import Probes
from tests.live.support.project import Project
from tests.live.support.publishers import no_publisher_is_left  # noqa: F401
from tests.servers import NatsServer
from tests.waiting import eventually

USER = {"user": "analyst", "password": "word"}

# The same stream and the same durable on both systems: only the connection tells them apart.
CONSUMERS = """
from nats_consumer import DeadLetter, JetstreamPullConsumer, JetstreamPushConsumer, operations

class Both:
    stream_name = "orders"
    filter_subject = "orders.>"
    durable_name = "reader"

    def setup(self):
        return operations.CreateStream(name="orders", subjects=["orders.>"])

    async def handle_message(self, message):
        client = await self.nats_client
        text = message.data.decode()
        print(f"{type(self).__name__} {text} over {client.connected_url.port}", flush=True)
        if text == "bad":
            raise DeadLetter("refused")

class Orders(Both, JetstreamPullConsumer):
    pass

class Events(Both, JetstreamPushConsumer):
    connection = "analytics"
"""


@contextmanager
def running(folder: Path, *options: str) -> Iterator[NatsServer]:
    """A server of the test's own."""
    folder.mkdir()
    server = NatsServer(folder, options)
    server.start()
    try:
        yield server
    finally:
        if server.is_running:
            server.stop()


@pytest.fixture
def analytics(tmp_path: Path) -> Iterator[NatsServer]:
    """The second system, which asks for a password."""
    with running(tmp_path / "analytics", "--user", "analyst", "--pass", "word") as server:
        yield server


@pytest.fixture
def two_systems(settings: Settings, own_server: NatsServer, analytics: NatsServer) -> None:
    """This process knows both."""
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": own_server.url},
        "connections": {"analytics": {"servers": analytics.url, **USER}},
    }


@pytest.fixture
def project(
    make_project: Callable[..., Project], own_server: NatsServer, analytics: NatsServer
) -> Project:
    """A project whose workers know both."""
    made = make_project(CONSUMERS, url=own_server.url)
    add_connection(made, "analytics", servers=analytics.url, **USER)
    return made


def add_connection(project: Project, alias: str, **connect_args: Any) -> None:
    with (project.folder / "settings.py").open("a") as file:
        file.write(f'NATS_CONSUMER.setdefault("connections", {{}})[{alias!r}] = {connect_args!r}\n')


def make_streams() -> None:
    """A stream on each system; that of the second has a second subject."""
    asyncio.run(operations.CreateStream(name="orders", subjects=["orders.>"]).execute())
    subjects = ["orders.>", "events.>"]
    asyncio.run(
        operations.CreateStream(name="orders", subjects=subjects, using="analytics").execute()
    )


def stored(server: NatsServer, stream: str = "orders") -> int:
    """How many messages the stream has; none while it does not exist."""
    found = server.streams().get(stream)
    return int(found["state"]["messages"]) if found else 0


def is_settled(server: NatsServer, stream: str, durable: str, count: int) -> None:
    """Wait until the durable has settled the first `count` messages."""
    eventually(lambda: server.consumer(stream, durable)["ack_floor"]["stream_seq"] == count)


def port(server: NatsServer) -> str:
    return server.url.rpartition(":")[2]


def consuming(project: Project, *arguments: str) -> Command:
    worker = project.consume(*arguments)
    for name in ("Orders", "Events"):
        worker.wait_for(f"{name}: consuming")
    return worker


@pytest.mark.usefixtures("two_systems")
def test_one_worker_consumes_from_two_systems_and_keeps_all_of_a_consumer_on_its_own(
    project: Project, own_server: NatsServer, analytics: NatsServer
) -> None:
    worker = consuming(project, "--setup")
    publish("orders.new", "one")
    publish("orders.new", "two", using="analytics")
    publish("orders.new", "bad", using="analytics")
    worker.wait_for(f"Orders one over {port(own_server)}")
    worker.wait_for(f"Events two over {port(analytics)}")
    eventually(lambda: stored(analytics, "orders-dlq") == 1)
    assert "orders-dlq" not in own_server.streams()
    for server, count in ((own_server, 1), (analytics, 2)):
        assert stored(server) == count
        is_settled(server, "orders", "reader", count)
    worker.interrupt()
    assert worker.finish() == 0
    assert not worker.lines_with("Orders two") + worker.lines_with("Events one")


@pytest.mark.usefixtures("two_systems")
def test_a_system_that_is_away_leaves_the_consumers_of_the_other_alone(
    project: Project, analytics: NatsServer
) -> None:
    with (project.folder / "settings.py").open("a") as file:
        file.write('NATS_CONSUMER["ready_grace"] = 0\n')
    worker = consuming(project, "--setup", "--http", "127.0.0.1:0")
    probes = Probes(worker)
    eventually(probes.is_ready)
    analytics.stop()
    eventually(lambda: "[-] Events" in probes.get("/readyz").text)
    assert "[+] Orders consuming" in probes.get("/readyz").text
    publish("orders.new", "one")
    worker.wait_for("Orders one")
    analytics.start()
    publish("orders.new", "two", using="analytics")
    worker.wait_for("Events two")
    eventually(probes.is_ready)


@pytest.mark.usefixtures("two_systems")
def test_everything_that_publishes_finds_the_system_it_is_told(
    own_server: NatsServer, analytics: NatsServer
) -> None:
    make_streams()
    publish("events.a", b"", using="analytics")
    publish_many([("events.a", b""), Outgoing("events.a", b"")], using="analytics")

    async def publish_too() -> None:
        await apublish("events.{kind}", b"", kind="a", using="analytics")
        await apublish_many([("events.a", b"")], using="analytics")

    asyncio.run(publish_too())
    assert (stored(analytics), stored(own_server)) == (5, 0)
    with pytest.raises(NoStreamResponse):
        publish("events.a", b"", using="default")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("two_systems")
def test_a_commit_publishes_to_the_system_it_is_told(
    own_server: NatsServer, analytics: NatsServer
) -> None:
    make_streams()
    publish_on_commit("orders.new", b"", connection="analytics")
    publish_many_on_commit([("orders.new", b"")], connection="analytics")
    assert (stored(analytics), stored(own_server)) == (2, 0)
    with pytest.raises(ConfigurationError, match=r"no connection 'reports'.*default, analytics"):
        publish_on_commit("orders.new", b"", connection="reports")


@pytest.mark.usefixtures("two_systems")
def test_a_request_is_answered_by_the_system_it_is_told() -> None:
    async def ask(using: str) -> list[bytes]:
        async with await get_nats_client(using=using) as client:

            async def answer(message: Any) -> None:
                await message.respond(using.encode())

            await client.subscribe("who", cb=answer)
            await client.flush()
            answers = [await arequest("who", using=using)]
            answers.append(await asyncio.to_thread(request, "who", using=using))
            return [each.data for each in answers]

    for using in ("default", "analytics"):
        assert asyncio.run(ask(using)) == [using.encode()] * 2


@pytest.mark.usefixtures("two_systems")
def test_an_argument_of_a_client_replaces_the_setting_of_its_connection() -> None:
    with pytest.raises(Denied):
        asyncio.run(get_nats_client(using="analytics", password="wrong"))


@pytest.mark.usefixtures("two_systems")
def test_an_alias_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ConfigurationError, match=r"no connection 'reports'.*default, analytics"):
        publish("orders.new", b"", using="reports")
    with pytest.raises(CommandError, match=r"no connection 'reports'.*default, analytics"):
        call_command("nats_dlq", "list", "--connection", "reports")


def dlq(*arguments: str) -> str:
    output = io.StringIO()
    call_command("nats_dlq", *arguments, stdout=output, stderr=output)
    return output.getvalue()


@pytest.mark.usefixtures("two_systems")
def test_the_commands_act_on_the_system_that_they_are_told(
    project: Project, own_server: NatsServer, analytics: NatsServer
) -> None:
    worker = consuming(project, "--setup")
    publish("orders.new", "bad", using="analytics")
    eventually(lambda: stored(analytics, "orders-dlq"))
    worker.interrupt()
    assert worker.finish() == 0

    assert "orders: 0 dead letters" in dlq("list", "orders")
    printed = dlq("list", "orders", "--connection", "analytics")
    assert f"Server: {analytics.url}" in printed
    assert "orders: 1 dead letter" in printed
    with dead_letters("analytics") as letters:
        assert [each.reason for each in letters.select("orders", Selection())] == ["refused"]
    dlq("replay", "1", "--stream", "orders", "--connection", "analytics")
    assert stored(analytics) == 2

    call_command("nats_update_stream", "orders", "--max-msgs", "5", "--connection", "analytics")
    assert analytics.stream("orders")["config"]["max_msgs"] == 5
    assert own_server.stream("orders")["config"]["max_msgs"] == -1
    call_command("nats_delete_stream", "orders", "--force", "--connection", "analytics")
    assert "orders" not in analytics.streams()
    assert "orders" in own_server.streams()


def test_an_operation_of_setup_may_name_another_system(
    make_project: Callable[..., Project], own_server: NatsServer, analytics: NatsServer
) -> None:
    project = make_project(
        """
        from nats_consumer import JetstreamPullConsumer, operations

        class Events(JetstreamPullConsumer):
            connection = "analytics"
            stream_name = "events"
            filter_subject = "events.>"

            def setup(self):
                yield operations.CreateStream(name="events", subjects=["events.>"])
                yield operations.CreateStream(name="orders", subjects=["orders.>"], using="default")

            async def handle_message(self, message): ...
        """,
        url=own_server.url,
    )
    add_connection(project, "analytics", servers=analytics.url, **USER)
    worker = project.consume("--setup")
    worker.wait_for("Events: consuming")
    assert set(analytics.streams()) == {"events"}
    assert set(own_server.streams()) == {"orders"}


@pytest.mark.usefixtures("two_systems")
def test_an_error_names_the_command_that_deletes_the_stream_of_that_system() -> None:
    make_streams()
    change = operations.CreateOrUpdateStream(name="orders", storage="memory", using="analytics")
    with pytest.raises(StreamMismatch, match="nats_delete_stream orders --connection analytics"):
        asyncio.run(change.execute())


def test_two_embedded_servers_have_a_store_each(make_project: Callable[..., Project]) -> None:
    project = make_project(CONSUMERS, url="embedded")
    add_connection(project, "analytics", servers="embedded")
    worker = consuming(project, "--setup")
    project.run(
        "-c",
        "import django; django.setup()\n"
        "from nats_consumer import publish\n"
        "publish('orders.new', 'one')\n"
        "publish('orders.new', 'two', using='analytics')\n",
    ).finish()
    assert worker.wait_for("Orders one") != worker.wait_for("Events two")
    worker.interrupt()
    assert worker.finish() == 0
    assert {each.name for each in project.folder.glob(".nats*")} == {".nats", ".nats-analytics"}


@pytest.fixture
def hub_and_leaf(tmp_path: Path) -> Iterator[tuple[NatsServer, NatsServer]]:
    """Two servers with a JetStream domain each; the second is a leaf node of the first."""
    with running(tmp_path / "hub", "-c", config(tmp_path, "hub", 'listen: "127.0.0.1:-1"')) as hub:
        remote = f'remotes: [{{ url: "nats-leaf://127.0.0.1:{hub.leaf_node_port()}" }}]'
        with running(tmp_path / "leaf", "-c", config(tmp_path, "leaf", remote)) as leaf:
            eventually(lambda: hub.leaf_nodes() == 1)
            yield hub, leaf


def config(folder: Path, domain: str, leafnodes: str) -> str:
    file = folder / f"{domain}.conf"
    file.write_text(f'jetstream {{ domain: "{domain}" }}\nleafnodes {{ {leafnodes} }}\n')
    return str(file)


@pytest.mark.parametrize("kind", ["Pull", "Push"])
def test_one_worker_consumes_from_the_domain_of_the_hub_and_from_that_of_a_leaf(
    make_project: Callable[..., Project],
    hub_and_leaf: tuple[NatsServer, NatsServer],
    kind: str,
) -> None:
    hub, leaf = hub_and_leaf
    project = make_project(
        f"""
        from nats_consumer import DeadLetter, Jetstream{kind}Consumer, operations

        class Both(Jetstream{kind}Consumer):
            async def handle_message(self, message):
                text = message.data.decode()
                print(f"{{type(self).__name__}} {{text}}", flush=True)
                if text == "bad":
                    raise DeadLetter("refused")

            def setup(self):
                stream = self.stream_name
                return operations.CreateStream(name=stream, subjects=[stream + ".>"])

        class Orders(Both):
            stream_name = "orders"
            filter_subject = "orders.>"

        class Events(Both):
            connection = "leaf"
            stream_name = "events"
            filter_subject = "events.>"
        """,
        url=hub.url,
    )
    add_connection(project, "leaf", servers=hub.url, jetstream_domain="leaf")
    worker = consuming(project, "--setup")
    project.run(
        "-c",
        "import django; django.setup()\n"
        "from nats_consumer import publish\n"
        "publish('orders.new', 'bad')\n"
        "publish('events.new', 'bad', using='leaf')\n",
    ).finish()
    worker.wait_for("Orders bad")
    worker.wait_for("Events bad")
    for server, stream, name in ((hub, "orders", "Orders"), (leaf, "events", "Events")):
        is_settled(server, stream, name, 1)
        assert set(server.streams()) == {stream, f"{stream}-dlq"}
        assert stored(server, f"{stream}-dlq") == 1
    worker.interrupt()
    assert worker.finish() == 0
