"""A reader may follow one page after another in one project: streams and durables fit together."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tests.docs.support.blocks import blocks, name_of, pages

CREATING = ("CreateStream", "CreateOrUpdateStream")
KINDS = ("JetstreamPullConsumer", "JetstreamPushConsumer")


def classes_and_calls() -> Iterator[tuple[str, ast.ClassDef | None, ast.Call | None]]:
    """Each class of a page, and each call beside it in the class that is around it."""
    for page in pages():
        for block in blocks(page):
            if block.language == "python" and not block.not_run:
                for _, text in block.parts():
                    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                    yield from found_in(name_of(page), compile(text, str(block), "exec", flags))


def found_in(
    page: str, node: ast.AST, around: ast.ClassDef | None = None
) -> Iterator[tuple[str, ast.ClassDef | None, ast.Call | None]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield page, child, None
        elif isinstance(child, ast.Call):
            yield page, around, child
        yield from found_in(page, child, child if isinstance(child, ast.ClassDef) else around)


def attributes(of: ast.ClassDef | None) -> dict[str, Any]:
    assigned = [each for each in of.body if isinstance(each, ast.Assign)] if of else []
    return {
        target.id: literal(each.value)
        for each in assigned
        for target in each.targets
        if isinstance(target, ast.Name)
    }


def literal(value: ast.AST, of: ast.ClassDef | None = None) -> Any:
    """The value, or that of the class for `self.<attribute>`; None for another one."""
    if isinstance(value, ast.Attribute):
        return attributes(of).get(value.attr)
    try:
        return ast.literal_eval(value)
    except ValueError:
        return None


def test_a_stream_has_the_same_subjects_on_all_pages() -> None:
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for page, around, call in classes_and_calls():
        name = getattr(call and call.func, "attr", getattr(call and call.func, "id", None))
        if call is not None and name in CREATING:
            given = {each.arg: literal(each.value, around) for each in call.keywords}
            found[given["name"]][str(given["subjects"])].append(page)
    assert len(found["orders"]["['orders.>']"]) > 20
    assert {name: dict(each) for name, each in found.items() if len(each) > 1} == {}


def test_a_durable_is_of_one_kind_on_all_pages() -> None:
    found: dict[Any, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for page, kind, call in classes_and_calls():
        bases = [each.id for each in kind.bases if isinstance(each, ast.Name)] if kind else []
        of = [base for base in bases if base in KINDS]
        values = attributes(kind)
        if kind is not None and call is None and of and "stream_name" in values:
            durable = values.get("durable_name", kind.name)
            found[values["stream_name"], durable][of[0]].append(page)
    assert len(found["orders", "OrderConsumer"]["JetstreamPullConsumer"]) > 5
    assert {name: dict(each) for name, each in found.items() if len(each) > 1} == {}
