"""Views of made tokenizers, and prompt templates as a user writes them, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support import tiny
from vpgea.config.schema import ViewsConfig
from vpgea.prompts.texts import BUILT_IN
from vpgea.prompts.views import Views
from vpgea.questions.load import Question

QUESTION = Question("q", "What is 3 times 4?", "12")


def make_views(family: str = "r1", *, tokenizer: Any = None, eos_ids: list[int] | None = None, **config: Any) -> Views:
    tokenizer = tokenizer or tiny.make_tokenizer(family)
    return Views(tokenizer, ViewsConfig(**config), eos_ids or [tokenizer.eos_token_id])


def own_template(folder: Path, **changes: Any) -> str:
    """The built-in template with changes, as a user's file; None takes a key away."""
    content = yaml.safe_load((BUILT_IN / "default.yaml").read_text(encoding="utf-8")) | changes
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)
