"""What the user says: the question alone, or with a note behind it, as a template's texts have it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vpgea.errors import UsageError
from vpgea.prompts.chat import RENDERING
from vpgea.prompts.texts import Template
from vpgea.questions.question import Question

_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_compiled = lru_cache(maxsize=8)(_JINJA.from_string)  # takes longer than rendering a prompt

WITHOUT_ANSWER = {"none": "note_without_answer", "concise": "note_concise"}  # views.note → the template's text of it


class UserTurns:
    """Renders the user's turns. template: their texts."""

    def __init__(self, template: Template) -> None:
        self.template = template

    def plain(self, question: Question) -> str:
        """The prior's.

        Raises:
            UsageError: The template cannot be rendered.
        """
        return self._rendered(self.template.prior, question)

    def with_answer(self, question: Question, answer: str) -> str:
        """Behind it the note that names an answer. Raises what `plain` does."""
        return self.plain(question) + self._rendered(self.template.note, question, answer=answer)

    def without_answer(self, question: Question, note: str) -> str:
        """Behind it a text that names none. note: a key of WITHOUT_ANSWER.

        Raises:
            UsageError: The template cannot be rendered, or has no such text.
        """
        name = WITHOUT_ANSWER[note]
        if (text := getattr(self.template, name)) is None:
            raise UsageError(
                f"prompt template {self.template.name!r} has no note without an answer",
                why=f"views.note is {note}, which takes {name} from it",
                mend=f"add {name} to it, with no word of an answer; the built-in template has one",
            )
        return self.plain(question) + self._rendered(text, question, answer="")

    def _rendered(self, text: str, question: Question, **more: Any) -> str:
        variables = {"question": question.text, "options": list(question.options), **more}
        try:
            return _compiled(text).render(variables)
        except RENDERING as error:
            raise UsageError(
                f"prompt template {self.template.name!r} cannot be rendered for question {question.id}",
                why=" ".join(str(error).split()),
                mend="the variables are question and options, and answer in the note",
            ) from error
