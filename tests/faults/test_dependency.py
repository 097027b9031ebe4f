"""Something that every handler needs is down for a while, and all attempts fail meanwhile."""

from collections import Counter

import pytest

from tests.faults.support.stage import STREAM, Stage

MIX = [[1, {"do": "depend"}]]
COUNT = 300
OUTAGE = 8.0
pytestmark = pytest.mark.timeout(90)


def outage(stage: Stage) -> None:
    """It is down, and back after a while."""
    down = stage.folder / "down"
    with stage.fault("dependency down"):
        down.touch()
        stage.reaches("FAIL", COUNT)
        stage.passes(OUTAGE)
        down.unlink()


@pytest.mark.parametrize("consumer", ["Pulled", "PushedInThreads"])
def test_messages_with_attempts_left_wait_for_what_they_need(stage: Stage, consumer: str) -> None:
    stage.attributes |= {"max_retries": 30, "concurrency": 10}
    worker = stage.work(consumer).is_ready()
    producer = stage.produce(COUNT, rate=200, mix=MIX)
    outage(stage)
    assert producer.finish() == 0, producer.output
    stage.settled(consumer, timeout=20)
    stage.stop(worker)
    report = stage.check(consumer)
    assert (report.counts["done"], report.counts["dead"]) == (COUNT, 0)
    # 0.2, 0.4 and 0.8 s, then each second: no message is tried more often than that.
    tries = Counter(step.id for step in stage.handled("FAIL"))
    lasted = stage.faults[0].healed - stage.faults[0].began
    assert max(tries.values()) <= 3 + lasted


def test_messages_whose_attempts_are_used_up_are_kept_and_new_ones_are_handled(
    stage: Stage,
) -> None:
    worker = stage.work("Pulled").is_ready()
    down = stage.folder / "down"
    down.touch()
    assert stage.produce(COUNT, rate=500, mix=MIX, name="unlucky").finish() == 0
    stage.settled("Pulled")
    down.unlink()
    assert stage.produce(COUNT, rate=500, mix=MIX, name="later").finish() == 0
    stage.settled("Pulled")
    stage.stop(worker)
    report = stage.check("Pulled")
    assert (report.counts["done"], report.counts["dead"]) == (COUNT, COUNT)
    assert len(stage.witness.messages(f"{STREAM}-dlq")) == COUNT
