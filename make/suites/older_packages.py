"""A plugin for pytest that runs the tests of the older packages with this package: they are marked
for pytest-asyncio, and import the checkout of their package as `src`."""

import asyncio
import importlib
import inspect
import os
import sys
from typing import Any

import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")
_COMMAND = "nats_consumer.management.commands.nats_consumer"


def pytest_configure(config: pytest.Config) -> None:
    """Know their marker, and `src`."""
    config.addinivalue_line("markers", "asyncio: a coroutine function")
    importlib.import_module(_COMMAND)
    for name, module in list(sys.modules.items()):
        if name == "nats_consumer" or name.startswith("nats_consumer."):
            sys.modules[f"src.{name}"] = module
    sys.modules["src"] = sys.modules["nats_consumer"]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function, on an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    # Not of the signature: mocks are among its arguments.
    names = pyfuncitem._fixtureinfo.argnames
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True
