"""A child process of this command: the worker of a supervisor, or what --reload restarts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_CHILD = "NATS_CONSUMER_CHILD"


@dataclass(frozen=True)
class Child:
    """A child's instructions. `alive` is the end of a pipe whose other end the parent holds, `page`
    the memory that it counts into, and `runs_setup` tells whether --setup is for it."""

    alive: int
    page: int | None = None
    runs_setup: bool = True

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables for the child."""
        page = "" if self.page is None else self.page
        return {_CHILD: f"{self.alive}:{page}:{int(self.runs_setup)}"}

    @property
    def inherited(self) -> list[int]:
        """The descriptors that the child needs."""
        return [self.alive] if self.page is None else [self.alive, self.page]

    @property
    def is_worker(self) -> bool:
        """Whether it is one of a supervisor's workers."""
        return self.page is not None

    @classmethod
    def of_this_process(cls) -> Self | None:
        """Return the instructions of this process, which its own children do not get; None if it
        is not a child of this command. From now on it drains when its parent has ended."""
        told = os.environ.pop(_CHILD, None)
        if told is None:
            return None
        # Here, because it loads the engine.
        from nats_consumer import _native

        alive, page, runs_setup = told.split(":")
        child = cls(int(alive), int(page) if page else None, runs_setup == "1")
        _native.end_with_parent(child.alive)
        return child
