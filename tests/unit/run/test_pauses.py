"""Pauses before a consumer or a worker starts again."""

from random import Random

from nats_consumer.run.pauses import Pauses


def test_pauses_double_up_to_thirty_seconds_and_none_is_a_fifth_off() -> None:
    pauses = Pauses(Random(1))
    expected = (1, 2, 4, 8, 16, 30, 30)
    found = [pauses.after(lifetime=3) for _ in expected]
    assert all(0.8 * due <= pause <= 1.2 * due for due, pause in zip(expected, found, strict=True))
    assert len(set(found)) == len(found)


def test_the_pause_is_short_again_after_a_minute_of_health() -> None:
    pauses = Pauses(Random(1))
    for _ in range(5):
        pauses.after(lifetime=3)
    assert pauses.after(lifetime=60) <= 1.2
