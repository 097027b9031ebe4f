"""The names of all tests, Python's and Rust's."""

import re

from tests.docs.support.blocks import ROOT

_PYTHON_TEST = re.compile(r"^ *(?:async )?def (test_\w+)\(", re.MULTILINE)
_RUST_TEST = re.compile(r"#\[(?:tokio::)?test[^\n]*\n(?:\s*#\[[^\n]*\n)*\s*(?:async )?fn (\w+)\(")
# A property test has its attribute inside a macro.
_PROPERTY_TEST = re.compile(r"^\s+fn (\w+)\(.* in ", re.MULTILINE)


def known_tests() -> set[str]:
    python = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    folders = (ROOT / "engine", ROOT / "bridge")
    rust = (path.read_text() for folder in folders for path in folder.rglob("*.rs"))
    found = {name for text in python for name in _PYTHON_TEST.findall(text)}
    return found | {
        name
        for text in rust
        for pattern in (_RUST_TEST, _PROPERTY_TEST)
        for name in pattern.findall(text)
    }
