"""What a folder recorded of its configuration, and which of it must come from the user: settings that run code.

Whoever wrote a folder chose what it records. Its values are taken over for whatever reads on from it, except where they
would run a program of the writer's choice, or send prompts and keys to a server of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vpgea.config.problems import Problem, shown

_Test = Callable[[Any], bool]
_RUNS_CODE: dict[str, _Test] = {
    "model.trust_remote_code": bool,
    "grading.grader": lambda value: ":" in str(value),  # a function of one's own
    "sglang.python": bool,
    "sglang.options": bool,  # some of a server's options name code
    "sglang.server_url": bool,
}


def runs_code(key: str, value: object) -> bool:
    """Whether a value runs code that comes from elsewhere, or reaches for a server elsewhere."""
    return key in _RUNS_CODE and _RUNS_CODE[key](value)


def variables(environment: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Those of the environment's variables that give such settings."""
    names = {prefix + key.upper().replace(".", "__") for key in _RUNS_CODE}
    return {name: value for name, value in environment.items() if name in names}


def untrusted(key: str, value: object, origin: str, variable: str) -> Problem:
    """What is told of a value that only a folder gives."""
    given = f"{key}={value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else '...'}"
    return Problem(
        f"{key} would run code that was not asked for: {shown(value)}",
        f"it came from {origin}, and whoever wrote that would choose what runs here",
        f"if you trust it, give it yourself: --set {given} where the command has --set, else {variable} in the "
        "environment; or give another value so",
    )
