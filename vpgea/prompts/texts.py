"""The texts of both views, as a YAML file says them."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from vpgea.config import strict_yaml
from vpgea.config.fields import Section
from vpgea.errors import UsageError, did_you_mean

BUILT_IN = Path(__file__).parent / "templates"


class Template(Section):
    """The texts of both views; the keys are explained in templates/default.yaml."""

    name: str
    prior: str
    note: str
    note_without_answer: str | None = None
    note_concise: str | None = None
    system: str | None = None
    assistant_prefix: str = ""
    answer_cue: str
    answer_close: str
    empty_thinking: str | None = None
    leak_phrases: list[str] = Field(default_factory=list)

    @field_validator("leak_phrases")
    @classmethod
    def _compilable(cls, phrases: list[str]) -> list[str]:
        for phrase in phrases:
            try:
                re.compile(phrase)
            except re.error as error:
                raise ValueError(f"{phrase!r} is no regular expression: {error}") from error
        return phrases


def load_template(name_or_path: str) -> Template:
    """A built-in template by name, or a user's YAML file.

    Raises:
        UsageError: It is neither, or cannot be used.
    """
    built_in = BUILT_IN / f"{name_or_path}.yaml"
    path = built_in if built_in.is_file() else Path(name_or_path)
    if not path.is_file():
        names = sorted(file.stem for file in BUILT_IN.glob("*.yaml"))
        raise UsageError(
            f"prompt template not found: {name_or_path}",
            why="it is neither a built-in template nor a file",
            mend=did_you_mean(name_or_path, names, f"give the path of a YAML file, or one of: {', '.join(names)}"),
        )
    try:
        return Template.model_validate(strict_yaml.parse(path.read_text(encoding="utf-8"), str(path))[0])
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise UsageError(
            f"prompt template cannot be used: {path}",
            why=" ".join(str(error).split()),
            mend=f"compare it with the built-in one: {BUILT_IN / 'default.yaml'}",
        ) from error
