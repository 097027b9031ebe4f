"""Pages, documentation, texts and names of tests lack the phrases that docs/style.md bans."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.support.blocks import ROOT, name_of, pages
from tests.docs.support.known import known_tests
from tests.docs.support.tables import rows

# The rows whose first cell is one phrase in backticks, and nothing else.
BANNED = [row[0][1:-1] for row in rows("style.md", "Patterns to drop") if row[0].startswith("`")]
PATTERN = re.compile("|".join(rf"\b{re.escape(each)}\b" for each in BANNED), re.IGNORECASE)
FOLDERS = (".", ".github", "bench", "demo", "engine")
CHECKED = [
    *(page for page in pages() if page != ROOT / "docs/style.md"),
    *(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md")),
]

RUST = [path for folder in ("engine", "bridge") for path in (ROOT / folder).rglob("*.rs")]
PYTHON = [
    path
    for folder in ("python/nats_consumer", "tests", "bench", "demo", "make")
    for path in (ROOT / folder).rglob("*.py")
    if ".venv" not in path.parts  # what `make bench` installs is not this project's
]
# The code whose literals users read: in the log, in errors, at a terminal.
PACKAGES = ("python/nats_consumer", "engine/src", "bridge/src")
LONGEST_NAME = 89
# Neither a noun nor a verb: they begin a clause that stands for one.
CLAUSE = re.compile(r"(What(ever)?|Who(ever)?|Where|So (many|much|long))\b")


def doc_comments(code: str) -> Iterator[str]:
    """Yield each doc comment of Rust, its lines joined."""
    for block in re.findall(r"(?:^[ \t]*//[/!].*\n)+", code, re.MULTILINE):
        yield "\n".join(line.strip()[3:].strip() for line in block.splitlines())


def docstrings(code: str) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = (node for node in ast.walk(ast.parse(code)) if isinstance(node, kinds))
    return (text for text in map(ast.get_docstring, documented) if text)


def python_literals(code: str) -> Iterator[str]:
    """Yield each string, with braces for the values of an f-string."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values
            )


def rust_literals(code: str) -> Iterator[str]:
    """Yield each string outside comments and the tests at the end, its lines joined."""
    code, *_ = re.split(r"^#\[cfg\(test\)\]\nmod tests \{", code, maxsplit=1, flags=re.MULTILINE)
    code = re.sub(r"^\s*//.*$", "", code, flags=re.MULTILINE)
    # Neither a quote as a character nor a raw string pairs with the others.
    code = re.sub(r"""'\\?"'|r#".*?"#""", "", code, flags=re.DOTALL)
    for text in re.findall(r'"((?:[^"\\]|\\.)*)"', code, re.DOTALL):
        yield re.sub(r"\\\n\s*", "", text)


def test_the_page_bans_something() -> None:
    assert "anew" in BANNED


@pytest.mark.parametrize("page", sorted(set(CHECKED)), ids=name_of)
def test_a_page_has_none_of_the_banned_phrases(page: Path) -> None:
    lines = enumerate(page.read_text().splitlines(), start=1)
    found = [(number, line) for number, line in lines if PATTERN.search(line)]
    assert found == []


def test_code_has_none_of_the_banned_phrases_in_its_documentation() -> None:
    assert [each for each in documentation() if PATTERN.search(each[1])] == []


def test_documentation_in_code_starts_with_a_noun_or_a_verb() -> None:
    assert [each for each in documentation() if CLAUSE.match(each[1])] == []


def test_texts_in_code_have_none_of_the_banned_phrases() -> None:
    code = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*.*")]
    kinds = {".py": python_literals, ".rs": rust_literals}
    found = [
        (name_of(path), text)
        for path in code
        if path.suffix in kinds and path.name != "tests.rs"
        for text in kinds[path.suffix](path.read_text())
        if len(text.split()) >= 3
    ]
    assert len(found) > 1500
    assert [each for each in found if PATTERN.search(each[1])] == []


def test_names_of_tests_are_short_and_have_none_of_the_banned_phrases() -> None:
    names = known_tests()
    assert [name for name in names if PATTERN.search(name.replace("_", " "))] == []
    assert [name for name in names if len(name) > LONGEST_NAME] == []


def documentation() -> list[tuple[str, str]]:
    """Return the files and texts of all doc comments and docstrings."""
    texts = [
        *((name_of(path), text) for path in RUST for text in doc_comments(path.read_text())),
        *((name_of(path), text) for path in PYTHON for text in docstrings(path.read_text())),
    ]
    assert len(texts) > 1000
    return texts
