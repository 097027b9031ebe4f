"""The libraries that know types: msgspec and pydantic. Neither is required."""

import sys
from functools import cache
from types import ModuleType
from typing import Any


@cache
def msgspec() -> ModuleType | None:
    """The module, if it is installed."""
    try:
        import msgspec
        import msgspec.inspect
    except ImportError:
        return None
    return msgspec


@cache
def pydantic() -> ModuleType | None:
    """The module, if it is installed."""
    try:
        import pydantic
        import pydantic.errors
    except ImportError:
        return None
    return pydantic


def is_struct(kind: Any) -> bool:
    """Whether it is a class of msgspec."""
    return _derives(kind, "msgspec", "Struct")


def is_model(kind: Any) -> bool:
    """Whether it is a class of pydantic."""
    return _derives(kind, "pydantic", "BaseModel")


def knows(module: ModuleType, kind: Any) -> bool:
    """Whether msgspec, the module, can decode the type by itself."""
    try:
        info = module.inspect.type_info(kind)
    except Exception:  # it says in many ways that it cannot
        return False
    return not _has_custom(module.inspect.CustomType, info, set())


def _has_custom(custom: type, info: Any, seen: set[int]) -> bool:
    """Whether a part of the type is of a class that msgspec does not know."""
    if id(info) in seen:
        return False
    seen.add(id(info))
    if isinstance(info, custom):
        return True
    if isinstance(info, tuple | list):
        return any(_has_custom(custom, each, seen) for each in info)
    parts = getattr(info, "__struct_fields__", ())
    return any(_has_custom(custom, getattr(info, name), seen) for name in parts)


def _derives(kind: Any, module: str, name: str) -> bool:
    # Who has such a class has imported the library.
    base = getattr(sys.modules.get(module), name, None)
    return base is not None and isinstance(kind, type) and issubclass(kind, base)
