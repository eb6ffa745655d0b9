"""A rendered prompt for people: its text, and its ids with every special token visible."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpgea.prompts.views import PromptPreview


def prompt_text(prompt: PromptPreview) -> str:
    ids = " ".join(f"{number}:{token!r}" for number, token in zip(prompt.ids, prompt.tokens, strict=True))
    title = f"=== {prompt.view} prompt of question {prompt.question_id}, {len(prompt.ids)} tokens ==="
    return f"{title}\n{prompt.text}\n--- ids ---\n{ids}"
