"""Runs the snippets of a page in its project, as scripts after `django.setup()`:
`python -m tests.docs.support.snippets snippets.json`. Each sees the names of the earlier ones."""

import ast
import asyncio
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import django


def main() -> None:
    """Run them; the first that raises ends the process with its traceback."""
    django.setup()
    from tests.waiting import eventually

    names: dict[str, Any] = {"__name__": "__main__", "eventually": eventually}
    for page, text in json.loads(Path(sys.argv[1]).read_text()):
        code = compile(text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            asyncio.run(result)


if __name__ == "__main__":
    main()
