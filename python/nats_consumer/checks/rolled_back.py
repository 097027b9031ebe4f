"""Finds `raise Ack()` inside `transaction.atomic()`: the exception rolls back what was done."""

import ast
import inspect
from collections.abc import Iterator
from textwrap import dedent
from typing import Any


def raises_ack_in_transaction(method: Any) -> bool:
    """Whether the method certainly does so, by its source."""
    try:
        (tree,) = ast.parse(dedent(inspect.getsource(inspect.unwrap(method)))).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return False
    return any(map(_raises_ack, _bodies(tree)))


def _bodies(tree: ast.AST) -> Iterator[ast.AST]:
    """The parts of the source that run inside a transaction."""
    for node in ast.walk(tree):
        match node:
            case ast.With(items=items) if any(_is_atomic(each.context_expr) for each in items):
                yield node
            case ast.FunctionDef(decorator_list=decorators) if any(map(_is_atomic, decorators)):
                yield node


def _is_atomic(expression: ast.expr) -> bool:
    called = expression.func if isinstance(expression, ast.Call) else expression
    return ast.unparse(called).split(".")[-1] == "atomic"


def _raises_ack(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Raise) and node.exc and ast.unparse(node.exc).startswith("Ack")
        for node in ast.walk(tree)
    )
