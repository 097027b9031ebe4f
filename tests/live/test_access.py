"""TLS, credentials and permissions, as the guide to deploying describes them."""

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import (
    DeadLetter,
    JetstreamPullConsumer,
    JetstreamPushConsumer,
    _native,
    apublish,
    apublish_many,
    get_nats_client,
    operations,
)
from nats_consumer.connect.log import LogPump
from nats_consumer.exceptions import ConfigurationError, Denied, Unreachable
from tests.faults.support.credentials import Authority
from tests.live.support.stage import running
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

# What docs/guides/deploying.md says that an account needs.
PUBLISH = ["$JS.API.>", "$JS.ACK.>", "dlq.>", "_mark.>"]
SUBSCRIBE = ["_INBOX.>", "_deliver.>"]
DOCS = Path(__file__).parent.parent.parent / "docs"
GUIDE = DOCS / "guides/deploying.md"
# What docs/howto/managed-nats.md says that is enough for the stream `orders`.
FEW = re.search(
    r"publish:\n(.*?)subscribe:\n(.*?)```", (DOCS / "howto/managed-nats.md").read_text(), re.DOTALL
)


async def ignore(self: Any, message: Any) -> None:
    """A handler."""


def of_orders(name: str, base: type, handle_message: Any = ignore) -> Any:
    """A consumer of everything in the stream `orders`."""
    attributes = {"stream_name": "orders", "filter_subject": "orders.>"}
    return type(name, (base,), {**attributes, "handle_message": handle_message})


@pytest.fixture
def engine_logs() -> Iterator[None]:
    """Carry the engine's log to Python, as under the command."""
    with LogPump(_native.take_logs):
        yield


@pytest.fixture
def permitting(configured: Any, settings: Settings) -> Any:
    """`permitting(publish, subscribe)` is a server whose user of the settings may do no more."""

    def start(publish: list[str], subscribe: list[str]) -> NatsServer:
        server = configured(f"""
            authorization {{ users = [
              {{ user: admin, password: all }}
              {{ user: shop, password: few, permissions: {{
                publish: {publish}, subscribe: {subscribe} }} }}
            ] }}
        """)
        settings.NATS_CONSUMER = {
            "connect_args": {"servers": server.url, "user": "shop", "password": "few"}
        }
        return server

    return start


def test_the_guide_names_these_permissions() -> None:
    sentence = GUIDE.read_text().partition("The account needs")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([^` ]+>)`", sentence)) == {*PUBLISH, *SUBSCRIBE}


@pytest.mark.parametrize(
    ("publish", "subscribe"),
    [(PUBLISH, SUBSCRIBE), tuple(each.split() for each in FEW.groups()) if FEW else ()],
    ids=["guide", "of one stream"],
)
async def test_the_permissions_that_the_guide_names_suffice_and_no_violation_is_logged(
    publish: list[str],
    subscribe: list[str],
    permitting: Any,
    engine_logs: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = permitting(publish, subscribe)
    handled: list[tuple[str, bytes]] = []

    async def handle_message(self: Any, message: Any) -> None:
        handled.append((type(self).__name__, message.data))
        if message.data == b"bad":
            raise DeadLetter("bad")

    pull = of_orders("Pull", JetstreamPullConsumer, handle_message)
    push = of_orders("Push", JetstreamPushConsumer, handle_message)
    looks: list[str] = []

    async def note(message: Any) -> None:
        looks.append(message.subject.rpartition(".")[2])

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
            # Between two looks at a durable the link is asked whether it still carries anything.
            await admin.subscribe("$JS.API.CONSUMER.INFO.orders.*", cb=note)
            await becomes_true(lambda: min(looks.count("Pull"), looks.count("Push")) >= 2)
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert [text for text in warnings if "becomes a dead letter" not in text] == []


async def test_publishing_without_the_permission_is_denied_and_not_a_timeout(
    permitting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    permitting(["mail.>", "$JS.API.>"], SUBSCRIBE)
    monkeypatch.setattr(sys.modules["nats_consumer.publish.publisher"], "_publishers", {})
    with pytest.raises(Denied, match=r"permit this user to publish to orders\.created: allow"):
        await apublish("orders.created", b"")
    with pytest.raises(ExceptionGroup) as caught:
        await apublish_many([("orders.created", b"")], timeout=1)
    assert [type(each) for each in caught.value.exceptions] == [Denied]
    async with await get_nats_client() as client:
        with pytest.raises(Denied, match=r"orders\.created"):
            await client.request("orders.created", b"")


async def test_a_worker_that_may_not_look_at_its_durable_says_so(permitting: Any) -> None:
    permitting(["$JS.API.STREAM.>"], SUBSCRIBE)
    pull = of_orders("Pull", JetstreamPullConsumer)
    with pytest.raises(Denied, match=r"publish to \$JS\.API\.CONSUMER\.INFO\.orders\.Pull"):
        async with running(pull):
            pass


async def test_a_denied_push_subscription_is_named_once_and_does_not_count_as_consuming(
    permitting: Any, engine_logs: None, caplog: pytest.LogCaptureFixture
) -> None:
    permitting(PUBLISH, ["_INBOX.>"])
    caplog.set_level("INFO", "nats_consumer")
    push = of_orders("Push", JetstreamPushConsumer)
    async with await get_nats_client(user="admin", password="all") as admin:
        await operations.CreateStream(name="orders", subjects=["orders.>"]).execute(admin)
    async with running(push) as consumer:
        await becomes_true(lambda: consumer._consumption.counters()["repairs"] >= 3)
        await becomes_true(lambda: "permit this user to subscribe to _deliver." in caplog.text)
    assert caplog.text.count("does not permit") == 1
    assert "Push: The NATS server does not permit" in caplog.text
    assert "Consuming again" not in caplog.text


async def test_a_lost_connection_is_logged_with_the_consumers_name_and_the_server(
    configured: Any, settings: Settings, engine_logs: None, caplog: pytest.LogCaptureFixture
) -> None:
    server = configured("")
    settings.NATS_CONSUMER = {"connect_args": {"servers": server.url}}
    pull = of_orders("Pull", JetstreamPullConsumer)
    async with await get_nats_client() as client:
        await operations.CreateStream(name="orders", subjects=["orders.>"]).execute(client)
    async with running(pull):
        server.stop()
        await becomes_true(lambda: "Pull: Lost the connection to NATS" in caplog.text)
        vain = f"Pull: Not connected to NATS yet: no server can be reached at {server.url}"
        await becomes_true(lambda: vain in caplog.text)


async def test_a_wrong_password_is_denied_at_once(configured: Any) -> None:
    server = configured("authorization { user: shop, password: right }")
    with pytest.raises(Denied) as caught:
        await get_nats_client(servers=server.url, user="shop", password="wrong")
    assert str(caught.value).count("authorization violation") == 1


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
    with pytest.raises(Unreachable, match="the server does not speak TLS at") as caught:
        await get_nats_client(servers=url, tls=True if asked == "tls" else None, connect_timeout=1)
    assert "False" not in str(caught.value)


async def test_a_certificate_of_an_unknown_authority_is_not_a_missing_server(
    configured: Any, certificates: Certificates
) -> None:
    files = f'cert_file: "{certificates["server.pem"]}", key_file: "{certificates["server.key"]}"'
    server = configured(f"tls {{ {files} }}")
    with pytest.raises(Unreachable, match=r"authority that is not trusted.* in `tls_ca`") as caught:
        await get_nats_client(servers=server.url, connect_timeout=1)
    assert "No NATS server" not in str(caught.value)


async def test_a_key_that_is_none_is_an_error_of_the_settings_not_a_reason_to_leave_tls(
    configured: Any, certificates: Certificates
) -> None:
    files = f'cert_file: "{certificates["server.pem"]}", key_file: "{certificates["server.key"]}"'
    server = configured(f"tls {{ {files} }}")
    with pytest.raises(ConfigurationError, match="`tls_key` are PEM files") as caught:
        await get_nats_client(
            servers=server.url,
            tls_ca=certificates["ca.pem"],
            tls_cert=certificates["client.pem"],
            tls_key=certificates["ca.pem"],
        )
    assert "False" not in str(caught.value)


async def test_a_password_is_kept_from_a_server_without_tls_and_the_error_says_why(
    configured: Any,
) -> None:
    server = configured("authorization { user: shop, password: right }")
    # Not a name of this machine to the engine, which compares names as they are written.
    url = server.url.replace("127.0.0.1", "LOCALHOST")
    args = {"servers": url, "user": "shop", "password": "right"}
    with pytest.raises(Unreachable, match="a password or token is sent over TLS only") as caught:
        await get_nats_client(**args, connect_timeout=1)
    text = str(caught.value)
    assert text.index("Enable TLS on the server") < text.index("set `tls` to False")
    async with await get_nats_client(**args, tls=False) as client:
        assert client.is_connected


async def test_a_callable_token_is_asked_for_each_connection(configured: Any) -> None:
    server = configured("authorization { token: right }")
    given = ["wrong", "right"]
    with pytest.raises(Denied):
        await get_nats_client(servers=server.url, token=lambda: given.pop(0))
    async with await get_nats_client(servers=server.url, token=lambda: given.pop(0)) as client:
        assert client.is_connected
    with pytest.raises(Denied, match="the callable `token` raised IndexError"):
        await get_nats_client(servers=server.url, token=lambda: given.pop(0))


async def test_a_publisher_that_may_not_receive_answers_hears_so_at_once_and_stores_once(
    configured: Any,
) -> None:
    server = configured("""
        jetstream {}
        authorization { users: [
          { user: all, password: x },
          { user: shop, password: x,
            permissions: { publish: ["orders.>"], subscribe: { deny: [">"] } } } ] }
    """)
    async with await get_nats_client(servers=server.url, user="all", password="x") as client:
        await client.jetstream().add_stream(name="orders", subjects=["orders.>"])
        args = {"servers": server.url, "user": "shop", "password": "x"}
        async with await get_nats_client(**args) as shop:
            with pytest.raises(
                Denied,
                match=r"so the result of this request is unknown.*`_INBOX\.>`",
            ):
                await shop.jetstream().publish("orders.new", b"")
            for _ in range(3):
                with pytest.raises(Denied, match="receive answers, so nothing was sent"):
                    await shop.jetstream().publish("orders.new", b"")
        assert (await client.jetstream().stream_info("orders")).state.messages <= 1


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
        # A client that wants TLS hangs up in the middle of it.
        with suppress(ConnectionError):
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
