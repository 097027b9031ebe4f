"""What mypy says of a project's code. Each comment names an error: where it is missing, `make lint`
fails."""

from nats_consumer import __version__, publish
from nats_consumer import publsih as misspelled  # type: ignore[attr-defined]

version: str = __version__
__all__ = ["misspelled", "publish", "version"]
