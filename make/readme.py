"""README.md as a package index shows it, where links to files of the repository lead nowhere."""

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager

from steps import ROOT

_README = ROOT / "README.md"
_LINK = re.compile(r"\[([^\]]+)\]\((?!\w+://)([^)\s#]*)(#[^)\s]*)?\)")


def for_the_index(text: str, repository: str | None, version: str) -> str:
    """The text with links to the files of this version, or without a repository their labels."""

    def link(match: re.Match[str]) -> str:
        label, path, anchor = match[1], match[2], match[3] or ""
        if not path:
            return match[0]
        if repository is None:
            return label
        kind = "tree" if path.endswith("/") else "blob"
        return f"[{label}]({repository}/{kind}/v{version}/{path.rstrip('/')}{anchor})"

    return _LINK.sub(link, text)


@contextmanager
def readme_for_the_index(version: str) -> Iterator[None]:
    """Inside, README.md is the index's; afterwards it is the repository's again."""
    package = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    ours = _README.read_text()
    try:
        _README.write_text(for_the_index(ours, package.get("repository"), version))
        yield
    finally:
        _README.write_text(ours)
