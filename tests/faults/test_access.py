"""Credentials that stop being good while a worker runs: no storm, and it goes on when they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.support.ledgers import read
from tests.faults.support.nodes import Node
from tests.faults.support.proxy import Proxy
from tests.faults.support.stage import Stage
from tests.faults.support.witness import Witness
from tests.waiting import eventually

CONSUMERS = ("Pulled", "Pushed")
CONNECTIONS = len(CONSUMERS) + 1  # and the producer's
pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Callable[[str], Node]]:
    """`guarded(text)` is a running server with this configuration."""
    nodes: list[Node] = []

    def make(text: str) -> Node:
        nodes.append(Node.configured(tmp_path / "guarded", text))
        nodes[-1].start()
        return nodes[-1]

    yield make
    for node in nodes:
        node.kill()


@contextmanager
def load(stage: Stage, count: int) -> Iterator[None]:
    stage.create()
    worker = stage.work(*CONSUMERS).is_ready()
    producer = stage.produce(count, rate=100)
    stage.goes_on()
    yield
    stage.goes_on()
    assert not worker.command.has_ended
    assert producer.finish(timeout=60) == 0, producer.output
    stage.settled(*CONSUMERS)
    stage.stop(worker)
    stage.check(*CONSUMERS)


def without_a_storm(stage: Stage, proxy: Proxy, seconds: float) -> None:
    before = proxy.connections
    stage.passes(seconds)
    assert proxy.connections - before <= most_tries(seconds), stage.story()


def most_tries(seconds: float) -> float:
    """Pauses double up to half a second: some ten tries at first, then two a second and a few."""
    return CONNECTIONS * (10 + 3 * seconds)


def test_a_password_that_is_changed_and_changed_back(
    guarded: Callable[[str], Node],
    make_proxy: Callable[[str], Proxy],
    make_stage: Callable[..., Stage],
) -> None:
    def users(password: str) -> str:
        return f"""authorization {{ users = [
            {{ user: witness, password: w }}, {{ user: shop, password: {password} }} ] }}"""

    server = guarded(users("first"))
    proxy = make_proxy(server.url)
    witness = Witness([server.url], user="witness", password="w")
    stage = make_stage(witness, [proxy.url])
    stage.connect |= {"user": "shop", "password": "first"}
    with load(stage, 1500):
        with stage.fault("password changed"):
            server.reload(users("second"))
            without_a_storm(stage, proxy, 8)
            server.reload(users("first"))
        assert "first" not in stage.workers[0].command.output


def account(jetstream: str) -> str:
    return f"""no_auth_user: shop
        accounts {{ SHOP {{ jetstream: {jetstream}, users: [{{ user: shop, password: s }}] }} }}"""


def test_an_account_that_may_not_use_jetstream_for_a_while(
    guarded: Callable[[str], Node],
    make_proxy: Callable[[str], Proxy],
    make_stage: Callable[..., Stage],
) -> None:
    def refused(consumer: str) -> bool:
        lines = stage.workers[0].command.lines_with("JetStream not enabled for account")
        return any(f" {consumer}: " in line for line in lines)

    server = guarded(account("enabled"))
    stage = make_stage(Witness([server.url]), [make_proxy(server.url).url])
    with load(stage, 1500), stage.fault("JetStream disabled"):
        server.reload(account("disabled"))
        eventually(lambda: all(map(refused, CONSUMERS)), 20, stage.story)
        server.reload(account("enabled"))


def test_an_account_that_has_reached_its_limit(
    guarded: Callable[[str], Node],
    make_proxy: Callable[[str], Proxy],
    make_stage: Callable[..., Stage],
) -> None:
    server = guarded(account("{ max_file: 200K, max_mem: 1M }"))
    stage = make_stage(Witness([server.url]), [make_proxy(server.url).url])
    with load(stage, 2500), stage.fault("account full"):
        refusal = "resource limits exceeded for account"
        eventually(lambda: refusal in read(stage.folder, "published")[-1].get("error", ""), 60)
        server.reload(account("enabled"))


def test_credentials_that_expire_and_are_renewed_in_their_file(
    guarded: Callable[[str], Node],
    make_proxy: Callable[[str], Proxy],
    make_stage: Callable[..., Stage],
    tmp_path: Path,
) -> None:
    from tests.faults.support.credentials import Authority

    authority = Authority()
    server = guarded(authority.configuration())
    proxy = make_proxy(server.url)
    authority.write_user(tmp_path / "witness.creds", 3600)
    witness = Witness([server.url], user_credentials=str(tmp_path / "witness.creds"))
    stage = make_stage(witness, [proxy.url])
    shop = tmp_path / "shop.creds"
    # Long enough for a worker to start on a busy machine.
    authority.write_user(shop, 15)
    stage.connect["user_credentials"] = str(shop)
    with load(stage, 2000), stage.fault("credentials expired"):
        eventually(lambda: "Lost the connection" in stage.workers[0].command.output, 30)
        without_a_storm(stage, proxy, 5)
        authority.write_user(shop, 3600)


def test_a_server_that_accepts_and_drops_at_once_is_not_stormed(stage: Stage, proxy: Proxy) -> None:
    worker = stage.work(*CONSUMERS).is_ready()
    producer = stage.produce(1000, rate=100)
    stage.goes_on()
    before = proxy.connections
    with stage.fault("accepted and dropped"):
        for _ in range(40):
            stage.passes(0.2)
            proxy.cut()
    assert proxy.connections - before <= most_tries(8)
    stage.goes_on()
    assert producer.finish(timeout=60) == 0, producer.output
    stage.settled(*CONSUMERS)
    stage.stop(worker)
    stage.check(*CONSUMERS)
