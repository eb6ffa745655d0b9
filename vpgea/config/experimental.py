"""Which keys, or which of their values, are experimental: tested to do what they say, but never needed."""

from __future__ import annotations

from typing import Any

from vpgea.config.schema import RunConfig, leaves, value_of


def experimental(field: Any) -> str:
    """Of a pydantic FieldInfo: `all of it`, its experimental values with commas between them, or nothing."""
    marked = field.json_schema_extra["experimental"]
    return "all of it" if marked is True else ", ".join(marked or ())


def meaning(field: Any) -> str:
    """What a field is for, and whether it or some of its values are experimental."""
    marked = experimental(field)
    values = "" if marked == "all of it" else f": {marked}"
    return f"{field.description} (experimental{values})" if marked else str(field.description)


def experimental_choices(config: RunConfig) -> list[str]:
    """`key=value` of everything in a configuration that is experimental and not at its default."""
    chosen = []
    for key, field in leaves():
        value, marked = value_of(config, key), field.json_schema_extra["experimental"]
        if value != field.get_default() and (marked is True or value in (marked or ())):
            chosen.append(f"{key}={value}")
    return chosen
