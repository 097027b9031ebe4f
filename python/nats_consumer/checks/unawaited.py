"""Finds the `await` that is missing before a ConsumerHandler's handle(): without it the handler's
coroutine never runs, and the message is acknowledged."""

import ast
import inspect
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

from nats_consumer.declare.declaration import Declaration, project_classes
from nats_consumer.declare.handler import ConsumerHandler


def unawaited_calls(consumer: type[Declaration]) -> list[str]:
    """The calls in an `async def handle_message` whose answer nobody awaits, as they are written.
    Only what certainly is a ConsumerHandler's: set in the class, or in an __init__."""
    method = getattr(consumer, "handle_message", None)
    if not inspect.iscoroutinefunction(method):
        return []
    return [
        ast.unparse(call)
        for call in _dropped_calls(method)
        if (attribute := _handled_by(call)) and _is_handler(consumer, attribute)
    ]


def _dropped_calls(function: Any) -> Iterator[ast.Call]:
    for node in _nodes(function):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield node.value


def _handled_by(call: ast.Call) -> str | None:
    """The name of the attribute of self, if the call is `self.<name>.handle(...)`."""
    match call.func:
        case ast.Attribute(
            attr="handle", value=ast.Attribute(value=ast.Name(id="self"), attr=name)
        ):
            return name
    return None


def _is_handler(consumer: type[Declaration], attribute: str) -> bool:
    made = [kind for cls in project_classes(consumer) for kind in _made(cls, attribute)]
    # What an __init__ sets hides what the class has.
    return all(
        _is_handler_class(each)
        for each in made or [type(inspect.getattr_static(consumer, attribute, None))]
    )


def _is_handler_class(each: object) -> bool:
    # An overridden handle() may be a plain `def`.
    return (
        isinstance(each, type)
        and issubclass(each, ConsumerHandler)
        and each.handle is ConsumerHandler.handle
    )


def _made(cls: type, attribute: str) -> Iterator[object]:
    """Yield the object that `self.<attribute> = <name>(...)` calls in the class's __init__, or None
    for another kind of assignment."""
    init = vars(cls).get("__init__")
    for node in _nodes(init):
        match node:
            case (
                ast.Assign(targets=[target], value=value)
                | ast.AnnAssign(target=target, value=value)
            ):
                if ast.unparse(target) == f"self.{attribute}":
                    yield _called(init, value)


def _called(function: Any, value: ast.expr | None) -> object:
    if not isinstance(value, ast.Call):
        return None
    first, *rest = ast.unparse(value.func).split(".")
    found = inspect.unwrap(function).__globals__.get(first)
    for name in rest:
        found = getattr(found, name, None)
    return found


def _nodes(function: Any) -> Iterator[ast.AST]:
    """The parts of the function itself; none if its source cannot be had."""
    try:
        (tree,) = ast.parse(dedent(inspect.getsource(function))).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return
    yield from _own_nodes(tree)


def _own_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        # What a function inside it does runs elsewhere.
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from _own_nodes(node)
