"""`make docs`: the documentation site, from the pages of the repository.

The pages stay what they are on any forge: Markdown with links to files. This copies them to one
folder, rewrites the links, adds the sidebar in the order of docs/README.md and the API reference,
and lets Sphinx build it. A warning fails the build: a broken link, a page outside of the sidebar.
"""

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT / "docs/README.md"
# Pages outside of docs, with their place on the site.
BESIDE = {
    "README.md": "index.md",  # docs/README.md is the start page; links to either lead there
    "ARCHITECTURE.md": "contributing/architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing/contributing.md",
    "SECURITY.md": "security.md",
    "bench/README.md": "contributing/bench.md",
    "demo/README.md": "demo.md",
    "engine/README.md": "rust.md",
}
PACKAGE = "nats_consumer"
# Modules whose docstrings are the API reference, in the reader's order.
MODULES = {
    "nats_consumer": "Consumers, outcomes, publishing",
    "nats_consumer.operations": "Operations on streams and durables",
    "nats_consumer.testing": "Testing",
    "nats_consumer.dead_letters": "Dead letters",
    "nats_consumer.client": "Client",
    "nats_consumer.exceptions": "Exceptions",
}
_documented: set[int] = set()
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_COMMENT = re.compile(r"<!--.*?-->\n*", re.DOTALL)
_FENCED = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_SECTION = re.compile(r"^## (.*)$", re.MULTILINE)


def main() -> int:
    """Build the site; return Sphinx's exit code."""
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument("output", type=Path, nargs="?", default=ROOT / "target/site")
    parser.add_argument("--rust", type=Path, help="the folder of the Rust documentation")
    arguments = parser.parse_args()
    pages = arguments.output.with_name(f"{arguments.output.name}-pages")
    write_pages(pages, with_rust=arguments.rust is not None)
    code = build(pages, arguments.output)
    if arguments.rust:
        shutil.copytree(arguments.rust, arguments.output / "rust-api")
    return code


def write_pages(folder: Path, *, with_rust: bool) -> None:
    """Write every page, with its links rewritten, the sidebar, and the API reference."""
    shutil.rmtree(folder, ignore_errors=True)
    places = _places()
    for path, place in places.items():
        if path == ROOT / "README.md":
            continue
        text = _rewritten(path, place, places, folder)
        if path == INDEX:
            text += _sidebar(text)
        if with_rust and path == ROOT / "engine/README.md":
            text += '\n<a href="rust-api/nats_consumer/index.html">API of the crate</a>\n'
        if path == ROOT / "docs/decisions/README.md":
            text += _toctree("", [link for _, link in _links(text)])
        _write(folder / place, text)
    _write(folder / "reference/api/index.md", _api_index())
    for module, title in MODULES.items():
        _write(folder / f"reference/api/{module}.md", _api(module, title))


def build(pages: Path, output: Path) -> int:
    """Let Sphinx build the pages: strict, quiet, from scratch."""
    shutil.rmtree(output, ignore_errors=True)
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "django.conf.global_settings"}
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-E"]
    settings = ["-c", ROOT / "make/sphinx", "-d", pages.with_name(f"{pages.name}-cache")]
    return subprocess.run(
        [str(each) for each in (*command, *settings, pages, output)], env=environment, check=False
    ).returncode


def _places() -> dict[Path, str]:
    """Every page of the repository that the site has, with its place there."""
    found = {ROOT / path: place for path, place in BESIDE.items()}
    for path in sorted((ROOT / "docs").rglob("*.md")):
        place = path.relative_to(ROOT / "docs").as_posix()
        found[path] = re.sub(r"README\.md$", "index.md", place)
    return found


def _rewritten(path: Path, place: str, places: dict[Path, str], folder: Path) -> str:
    """The page's text: links lead to other pages of the site, or are plain text."""

    def link(match: re.Match[str]) -> str:
        picture, label, target = match.groups()
        if "://" in target or target.startswith("#"):
            return match[0]
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve()
        if picture:
            copy = folder / "pictures" / found.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, copy)
            return f"![{label}]({_relative(f'pictures/{found.name}', place)})"
        if found in places:
            return f"[{label}]({_relative(places[found], place)}{'#' + anchor if anchor else ''})"
        return label if label.startswith("`") else f"`{label}`" if "/" in label else label

    text = _COMMENT.sub("\n", path.read_text())
    # Sphinx does not know the words that rustdoc reads behind the language.
    text = re.sub(r"^```rust,\S+$", "```rust", text, flags=re.MULTILINE)
    parts = _FENCED.split(text)
    return "".join(
        part if number % 2 else _LINK.sub(link, part) for number, part in enumerate(parts)
    )


def _relative(target: str, place: str) -> str:
    return os.path.relpath(target, Path(place).parent)


def _links(text: str) -> Iterator[tuple[str, str]]:
    for _, label, target in _LINK.findall(text):
        yield label, target


def _sidebar(index: str) -> str:
    """The sidebar: the headings and links of the start page, in their order."""
    parts = _SECTION.split(index)
    trees = [_toctree("", [link for _, link in _links(parts[0])])]
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        links = list(dict.fromkeys(link for _, link in _links(text)))
        if heading == "Reference":
            links.append("reference/api/index.md")
        trees.append(_toctree(heading, links))
    return "".join(trees)


def _toctree(caption: str, links: list[str]) -> str:
    entries = "\n".join(link.partition("#")[0] for link in links if "://" not in link)
    named = f":caption: {caption}\n" if caption else ""
    return f"\n```{{toctree}}\n:hidden:\n{named}\n{entries}\n```\n"


def _api_index() -> str:
    names = "\n".join(f"{module}.md" for module in MODULES)
    return f"# Python API\n\nFrom the docstrings.\n\n```{{toctree}}\n{names}\n```\n"


def _api(module: str, title: str) -> str:
    """A directive for each public object of the module that no page before it has."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None) or [
        name
        for name, each in vars(found).items()
        if not name.startswith("_") and getattr(each, "__module__", "").startswith(PACKAGE)
    ]
    directives = []
    for name in names:
        each = getattr(found, name)
        if not callable(each) or id(each) in _documented:
            continue
        _documented.add(id(each))
        kind = "autofunction" if not isinstance(each, type) else "autoclass"
        if isinstance(each, type) and issubclass(each, BaseException):
            kind = "autoexception"
        directives.append(f".. {kind}:: {module}.{name}\n")
    listed = "\n".join(directives)
    return (
        f"# {title}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :no-members:\n\n{listed}```\n"
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
