"""Pauses before a consumer or a worker starts again. They are random, so that a fleet whose stream
is missing does not act in step."""

from random import Random

_FIRST = 1.0
_LONGEST = 30.0
# How much shorter or longer a pause may be.
_JITTER = 0.2
# What ran for this long is taken to be well: its next pause is short again.
_WELL_AFTER = 60.0


class Pauses:
    """Pauses that grow from 1 to 30 seconds."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._pause = _FIRST

    def after(self, lifetime: float) -> float:
        """Return the pause after what ran for `lifetime` seconds."""
        if lifetime >= _WELL_AFTER:
            self._pause = _FIRST
        pause = self._pause
        self._pause = min(2 * pause, _LONGEST)
        return jittered(pause, self._random)


def jittered(pause: float, random: Random) -> float:
    """Return a pause that is up to a fifth shorter or longer."""
    return pause * random.uniform(1 - _JITTER, 1 + _JITTER)
