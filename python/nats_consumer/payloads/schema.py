"""JSON schemas of payload types."""

from typing import Any

from . import libraries

PLACE = "#/components/schemas/"


class SameName(Exception):  # noqa: N818 - named for what happened
    """Two types have one name, and different schemas."""


def schema_of(annotation: Any, components: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of the type, which may refer to `components`; None if no library knows it. Adds
    the schemas of classes to the components. Raises SameName."""
    found = _found(annotation)
    if found is None:
        return None
    schema, definitions = found
    for name, definition in definitions.items():
        if components.setdefault(name, definition) != definition:
            raise SameName(name)
    return schema


def _found(annotation: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    msgspec, pydantic = libraries.msgspec(), libraries.pydantic()
    try:
        if msgspec and not libraries.is_model(annotation) and libraries.knows(msgspec, annotation):
            (schema,), definitions = msgspec.json.schema_components(
                [annotation], ref_template=PLACE + "{name}"
            )
            return schema, definitions
        if pydantic:
            return _by_pydantic(pydantic, annotation)
    except TypeError:
        return None  # such as a dict whose keys are no texts
    return None


def _by_pydantic(pydantic: Any, annotation: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    try:
        adapter = pydantic.TypeAdapter(annotation)
    except pydantic.errors.PydanticUserError:
        return None
    schema = adapter.json_schema(ref_template=PLACE + "{model}")
    definitions = schema.pop("$defs", {})
    if not isinstance(annotation, type) or "properties" not in schema:
        return schema, definitions
    name = annotation.__name__
    return {"$ref": PLACE + name}, {**definitions, name: schema}
