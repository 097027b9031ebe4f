"""Code of a project, as mypy sees it. Each comment names an error: if that is missing, `make lint`
fails."""

from nats_consumer import __version__, publish
from nats_consumer import publsih as misspelled  # type: ignore[attr-defined]

version: str = __version__
__all__ = ["misspelled", "publish", "version"]
