"""Nothing is unpickled, evaluated or imported because a message says so."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nats_consumer

PACKAGE = Path(nats_consumer.__file__).parent
CHECKOUT = Path(__file__).parents[2]
# What turns bytes into objects of any kind, or into code.
UNPACKERS = {
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "jsonpickle",
    "marshal",
    "shelve",
    "yaml",
}
EVALUATORS = {"eval", "exec", "__import__"}
# They import what the project's settings and its own list of apps name.
IMPORTERS = {"apps.py", "event_loop.py", "middleware.py", "settings.py"}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def called(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func
            yield name.id if isinstance(name, ast.Name) else getattr(name, "attr", "")


def test_no_module_imports_what_unpickles() -> None:
    found = {path.name: UNPACKERS & set(imported(tree)) for path, tree in trees()}
    assert len(found) > 20
    assert {name: modules for name, modules in found.items() if modules} == {}


def test_no_module_evaluates_text_as_code() -> None:
    found = {path.name: set(called(tree)) & EVALUATORS for path, tree in trees()}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_only_settings_say_what_is_imported() -> None:
    importers = {"import_module", "import_string", "autodiscover_modules", "module_has_submodule"}
    found = {path.name for path, tree in trees() if importers & set(called(tree))}
    assert found <= IMPORTERS


def test_the_bridge_imports_no_such_module_either() -> None:
    sources = sorted((CHECKOUT / "bridge/src").rglob("*.rs"))
    assert sources
    named = re.compile(rf'"({"|".join(UNPACKERS | {"builtins"})})"')
    assert [path.name for path in sources if named.search(path.read_text())] == []


def test_what_unpickles_would_be_found() -> None:
    tree = ast.parse("def f(data):\n    from pickle import loads\n    return eval(loads(data))")
    assert set(imported(tree)) & UNPACKERS == {"pickle"}
    assert EVALUATORS & set(called(tree)) == {"eval"}
