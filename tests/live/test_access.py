"""TLS, credentials and permissions, as the guide to deploying describes them."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import (
    DeadLetter,
    JetstreamPullConsumer,
    JetstreamPushConsumer,
    get_nats_client,
    operations,
)
from nats_consumer.exceptions import Denied, Unreachable
from tests.faults.credentials import Authority
from tests.live.stage import running
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

# What docs/guides/deploying.md says that an account needs.
PUBLISH = ["$JS.API.>", "$JS.ACK.>", "dlq.>"]
SUBSCRIBE = ["_INBOX.>", "_deliver.>"]
GUIDE = Path(__file__).parent.parent.parent / "docs/guides/deploying.md"


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Any]:
    """`configured(text)` is a server with this configuration, running."""
    servers = []

    def start(text: str) -> NatsServer:
        folder = tmp_path / "secured"
        folder.mkdir()
        (folder / "server.conf").write_text(text)
        server = NatsServer(folder, ["-c", str(folder / "server.conf")])
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


async def test_the_permissions_that_the_guide_names_suffice(
    configured: Any, settings: Settings
) -> None:
    sentence = GUIDE.read_text().partition("The account needs")[2].partition("\n\n")[0]
    assert all(f"`{subject}`" in sentence for subject in (*PUBLISH, *SUBSCRIBE))
    server = configured(f"""
        authorization {{ users = [
          {{ user: admin, password: all }}
          {{ user: shop, password: few, permissions: {{
            publish: {PUBLISH}, subscribe: {SUBSCRIBE} }} }}
        ] }}
    """)
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": server.url, "user": "shop", "password": "few"}
    }
    handled: list[tuple[str, bytes]] = []

    async def handle_message(self: Any, message: Any) -> None:
        handled.append((type(self).__name__, message.data))
        if message.data == b"bad":
            raise DeadLetter("bad")

    of_orders = {
        "stream_name": "orders",
        "filter_subject": "orders.>",
        "handle_message": handle_message,
    }
    pull: Any = type("Pull", (JetstreamPullConsumer,), of_orders)
    push: Any = type("Push", (JetstreamPushConsumer,), of_orders)
    async with await get_nats_client(user="admin", password="all") as admin:
        jetstream = admin.jetstream()
        await operations.CreateStream(name="orders", subjects=["orders.>"]).execute(admin)
        async with running(pull), running(push):
            await jetstream.publish("orders.created", b"good")
            await jetstream.publish("orders.created", b"bad")
            await becomes_true(lambda: len(handled) == 4)
            await becomes_true(lambda: server.streams().get("orders-dlq"))
            await becomes_true(lambda: server.stream("orders-dlq")["state"]["messages"] == 2)
            for durable in ("Pull", "Push"):
                await becomes_true(
                    lambda name=durable: (
                        server.consumer("orders", name)["ack_floor"]["stream_seq"] == 2
                    )
                )


async def test_a_wrong_password_is_denied_at_once(configured: Any) -> None:
    server = configured("authorization { user: shop, password: right }")
    with pytest.raises(Denied):
        await get_nats_client(servers=server.url, user="shop", password="wrong")


class Certificates:
    """An authority, and a certificate of its own for 127.0.0.1 and for a client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca")
        (folder / "server.ext").write_text("subjectAltName=IP:127.0.0.1")
        (folder / "client.ext").write_text("extendedKeyUsage=clientAuth")
        for who in ("server", "client"):
            self._run(
                f"req -newkey rsa:2048 -nodes -keyout {who}.key -out {who}.csr -subj /CN={who}"
            )
            self._run(
                f"x509 -req -in {who}.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
                f" -extfile {who}.ext -out {who}.pem"
            )

    def __getitem__(self, name: str) -> str:
        return str(self._folder / name)

    def _run(self, arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments.split()], cwd=self._folder, check=True, capture_output=True
        )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates for this test, was not found")
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def test_tls_with_an_authority_and_a_client_certificate(
    configured: Any, certificates: Certificates
) -> None:
    server = configured(f"""
        tls {{ cert_file: "{certificates["server.pem"]}", key_file: "{certificates["server.key"]}",
               ca_file: "{certificates["ca.pem"]}", verify: true }}
    """)
    files = {
        "tls_ca": certificates["ca.pem"],
        "tls_cert": certificates["client.pem"],
        "tls_key": certificates["client.key"],
    }
    async with await get_nats_client(servers=server.url, **files) as client:
        assert client.is_connected
    with pytest.raises(Unreachable):  # signed by nobody whom the system knows
        await get_nats_client(servers=server.url, tls=True, connect_timeout=1)


@pytest.mark.parametrize("asked", ["tls", "url"])
async def test_a_server_without_tls_is_refused_where_tls_is_required(
    nats_server: NatsServer, asked: str
) -> None:
    url = nats_server.url if asked == "tls" else nats_server.url.replace("nats://", "tls://")
    with pytest.raises(Unreachable):
        await get_nats_client(servers=url, tls=asked == "tls", connect_timeout=1)


# The example pair of the NATS documentation: a public key and its seed.
NKEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"


async def test_an_nkey_lets_in_from_a_file_or_as_a_text(configured: Any, tmp_path: Path) -> None:
    server = configured(f"authorization {{ users = [ {{ nkey: {NKEY} }} ] }}")
    file = tmp_path / "shop.nk"
    file.write_text(SEED + "\n")
    async with await get_nats_client(servers=server.url, nkeys_seed=str(file)) as client:
        assert client.is_connected
    async with await get_nats_client(servers=server.url, nkeys_seed_str=SEED) as client:
        assert client.is_connected
    with pytest.raises(Denied):
        await get_nats_client(servers=server.url)


async def test_a_credentials_file_lets_in_and_another_accounts_does_not(
    configured: Any, tmp_path: Path
) -> None:
    authority = Authority()
    server = configured(authority.configuration())
    ours, strangers = tmp_path / "shop.creds", tmp_path / "stranger.creds"
    authority.write_user(ours, valid_for=3600)
    Authority().write_user(strangers, valid_for=3600)
    async with await get_nats_client(servers=server.url, user_credentials=ours) as client:
        await client.jetstream().add_stream(name="orders", subjects=["orders.>"])
        assert (await client.jetstream().publish("orders.created", b"")).seq == 1
    with pytest.raises(Denied) as caught:
        await get_nats_client(servers=server.url, user_credentials=strangers)
    seed = strangers.read_text().split("-----BEGIN USER NKEY SEED-----\n")[1].split()[0]
    assert seed not in str(caught.value)
    authority.write_user(ours, valid_for=-1)
    with pytest.raises(Denied):
        await get_nats_client(servers=server.url, user_credentials=ours)


class Listener:
    """A server that says hello, without TLS, and keeps what it is told."""

    def __init__(self) -> None:
        self.heard = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","headers":true}\r\n')
        while part := await reader.read(4096):
            self.heard += part
            if b"PING" in part:
                writer.write(b"PONG\r\n")
        writer.close()


@pytest.mark.parametrize(
    "secret",
    [{"user": "shop", "password": "hunter2"}, {"token": "hunter2"}, {"url": "shop:hunter2@"}],
)
async def test_no_secret_goes_without_tls_to_a_host_that_is_not_loopback(
    secret: dict[str, str],
) -> None:
    listener = Listener()
    in_url = secret.pop("url", "")
    async with await asyncio.start_server(listener, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        # The machine itself by a name that only the resolver knows to be loopback.
        servers = f"nats://{in_url}127.1:{port}"
        with pytest.raises(Unreachable):
            await get_nats_client(servers=servers, connect_timeout=0.5, **secret)
        assert b"hunter2" not in listener.heard
        async with await get_nats_client(servers=servers, tls=False, **secret):
            assert b"hunter2" in listener.heard


async def test_a_token_lets_in(configured: Any) -> None:
    server = configured('authorization { token: "let me in" }')
    async with await get_nats_client(servers=server.url, token="let me in") as client:
        assert client.is_connected
