"""The connection is cut, cut in the middle of a frame, silent, half open, slow, or it flaps."""

import random
from collections.abc import Callable

import pytest

from tests.faults.support.nodes import Node, free_ports
from tests.faults.support.proxy import DOWN, UP, Proxy
from tests.faults.support.stage import Stage

CONSUMERS = ("Pulled", "Pushed")
pytestmark = pytest.mark.timeout(120)

Harm = Callable[[Proxy], None]


def survives(stage: Stage, proxy: Proxy, harm: Harm, kind: str, count: int = 1500) -> None:
    stage.attributes["concurrency"] = 5
    worker = stage.work(*CONSUMERS).is_ready()
    producer = stage.produce(count, rate=200)
    stage.goes_on()
    with stage.fault(kind, forgets=False):
        harm(proxy)
    stage.goes_on()
    assert producer.finish(timeout=90) == 0, producer.output
    stage.settled(*CONSUMERS)
    stage.stop(worker)
    stage.check(*CONSUMERS)


@pytest.mark.faults_smoke
@pytest.mark.usefixtures("event_loop")
def test_a_connection_reset_in_the_middle_of_a_batch(stage: Stage, proxy: Proxy) -> None:
    survives(stage, proxy, Proxy.cut, "cut")


@pytest.mark.parametrize("way", [UP, DOWN])
def test_a_connection_reset_in_the_middle_of_a_message(
    stage: Stage, proxy: Proxy, way: str
) -> None:
    def harm(proxy: Proxy) -> None:
        for count in (1001, 2003, 4007, 8009):
            proxy.cut_after(way, count)
            stage.goes_on()

    survives(stage, proxy, harm, f"cut within a frame {way}", count=2500)


@pytest.mark.parametrize("way", [UP, DOWN])
def test_a_connection_that_is_silent_one_way(stage: Stage, proxy: Proxy, way: str) -> None:
    def harm(proxy: Proxy) -> None:
        with proxy.blackhole(way):
            stage.passes(12)

    survives(stage, proxy, harm, f"silence {way}", count=4000)


def test_a_connection_that_is_silent_for_a_moment(stage: Stage, proxy: Proxy) -> None:
    def harm(proxy: Proxy) -> None:
        with proxy.blackhole(UP, DOWN):
            stage.passes(2)

    survives(stage, proxy, harm, "silence")


@pytest.mark.parametrize("harm", [Proxy.half_open, Proxy.half_close])
def test_a_connection_that_is_gone_at_the_server_only(
    stage: Stage, proxy: Proxy, harm: Harm
) -> None:
    survives(stage, proxy, harm, harm.__name__, count=4000)


def test_a_half_open_connection_is_noticed_with_the_default_settings_too(
    stage: Stage, proxy: Proxy
) -> None:
    stage.connect = {}
    survives(stage, proxy, Proxy.half_open, "half open", count=4000)


def test_a_slow_connection(stage: Stage, proxy: Proxy) -> None:
    def harm(proxy: Proxy) -> None:
        with proxy.delay(0.25):
            stage.passes(6)

    survives(stage, proxy, harm, "delay")


def test_a_slow_connection_with_jitter_that_carries_byte_by_byte(
    stage: Stage, proxy: Proxy
) -> None:
    def harm(proxy: Proxy) -> None:
        with proxy.sliced(1), proxy.delay(0.1, random.Random(stage.seed)):
            for _ in range(10):
                stage.goes_on()

    survives(stage, proxy, harm, "slices", count=400)


def test_servers_of_the_list_that_nobody_knows_or_that_are_down_are_passed_over(
    stage: Stage, proxy: Proxy
) -> None:
    def harm(proxy: Proxy) -> None:
        for _ in range(3):
            proxy.cut()
            stage.goes_on()

    (dead,) = free_ports(1)
    stage.urls = ["nats://no-such-host.invalid:4222", f"nats://127.0.0.1:{dead}", *stage.urls]
    survives(stage, proxy, harm, "cut")


def test_a_flapping_connection_leaves_nothing_behind(
    stage: Stage, proxy: Proxy, node: Node
) -> None:
    before: dict[str, int] = {}

    def subscriptions() -> int:
        return int(node.varz()["subscriptions"])

    def harm(proxy: Proxy) -> None:
        before.update(stage.workers[0].resources(), subscriptions=subscriptions())
        for _ in range(8):
            with proxy.down():
                stage.passes(0.5)
            stage.passes(1)
        stage.goes_on()
        after = stage.workers[0].resources()
        assert after["task"] <= before["task"] + 2
        assert after["fd"] <= before["fd"] + 4
        # A witness may be asking for something.
        assert subscriptions() <= before["subscriptions"] + 2

    survives(stage, proxy, harm, "flapping", count=3000)


@pytest.mark.faults_smoke
def test_acknowledgements_that_never_arrive_are_redelivered(stage: Stage, proxy: Proxy) -> None:
    stage.attributes["concurrency"] = 5
    worker = stage.work(*CONSUMERS).is_ready()
    producer = stage.produce(500, rate=200)
    stage.goes_on()
    with stage.fault("acks dropped"), proxy.dropping(UP, rb"^PUB \$JS\.ACK\..*\+ACK") as dropped:
        stage.goes_on()
    assert producer.finish() == 0, producer.output
    stage.settled(*CONSUMERS)
    stage.stop(worker)
    report = stage.check(*CONSUMERS)
    assert len(dropped) == report.counts["redelivered: acks dropped"] > 0


@pytest.mark.faults_smoke
def test_a_publish_whose_confirmation_is_lost_is_repeated_and_stored_once(
    stage: Stage, proxy: Proxy
) -> None:
    worker = stage.work("Pulled").is_ready()
    with proxy.dropping(DOWN, rb'^MSG _INBOX.*"seq":') as dropped:
        producer = stage.produce(20, rate=100)
        stage.reaches("DONE", 1)
    assert producer.finish() == 0, producer.output
    assert dropped
    stage.settled("Pulled")
    stage.stop(worker)
    report = stage.check("Pulled")
    assert report.counts["stored"] == 20
    assert next(each.duplicate for each in stage.ledgers().published if each.event == "STORED")


def test_what_the_network_held_up_for_longer_than_ack_wait_is_not_started_when_it_arrives(
    stage: Stage, make_proxy: Callable[[str], Proxy], node: Node
) -> None:
    stage.attributes |= {"concurrency": 5, "ack_wait": 2.0}
    consumer, slow = "Pushed", make_proxy(node.url)
    stage.work(consumer).is_ready()
    stage.urls = [slow.url]
    stage.work(consumer).is_ready()
    stage.urls = [node.url]
    producer = stage.produce(2000, rate=200)
    stage.goes_on()
    for _ in range(2):
        with stage.fault("held up", forgets=False), slow.blackhole(DOWN):
            stage.passes(3.5)  # not long enough to be noticed as silence
        stage.goes_on()
    assert producer.finish(timeout=90) == 0, producer.output
    stage.settled(consumer)
    stage.check(consumer)
