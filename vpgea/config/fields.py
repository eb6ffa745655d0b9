"""What the sections of a configuration are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


def identity(
    default: Any,
    description: str,
    *,
    experimental: bool | tuple[str, ...] = False,
    absent: Any = None,
    **constraints: Any,
) -> Any:
    """A field that changes results.

    Args:
        default: its value where none is given.
        description: its meaning, for the reference.
        experimental: whether it is tested to do what it says but was never needed, so that it may change or go; or
            those of its values of which this is true.
        absent: of a field that came later, what a phase folder without it was made with; None: it was there from the
            first.
        constraints: pydantic's own, e.g. `ge`.
    """
    extra: dict[str, Any] = {"role": "identity", "experimental": experimental}
    extra |= {} if absent is None else {"absent": absent}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def execution(default: Any, description: str, **constraints: Any) -> Any:
    """A field that changes how the work is done, never what comes out."""
    return Field(
        default, description=description, json_schema_extra={"role": "execution", "experimental": False}, **constraints
    )


class Section(BaseModel):
    """A group of fields; unknown keys and wrong types are errors, values never change after resolution."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


Share = Annotated[float, Field(ge=0, le=1)]
