"""Prior and posterior prompts as token ids, and the place where thinking ends.

Both views are the same chat. The posterior's user turn is the prior's with a private note behind it, and both prompts
end in the same assistant prefix, id for id, so that a path moves between the views as token ids.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field, ValidationError, field_validator

from vpgea.config import strict_yaml
from vpgea.config.fields import Section
from vpgea.config.schema import ViewsConfig
from vpgea.errors import UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.questions.load import Question
from vpgea.storage.schemas import POSTERIOR, PRIOR, View

BUILT_IN = Path(__file__).parent / "templates"
_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_RENDERING = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)  # what templates raise
_PROBE = "vpgea-probe"  # stands for the user's turn where only the text around it matters


class Template(Section):
    """The texts of both views; the keys are explained in templates/default.yaml."""

    name: str
    prior: str
    note: str
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


SHOWN_QUESTIONS = 2  # of which prompts are shown to people


@dataclass(frozen=True, kw_only=True)
class PromptPreview:
    """A rendered prompt, for people to look at; tokens has one visible string per id."""

    view: View
    question_id: str
    text: str
    ids: list[int]
    tokens: list[str]


def load_template(name_or_path: str) -> Template:
    """A built-in template by name, or a user's YAML file.

    Raises:
        UsageError: It is neither, or cannot be used.
    """
    built_in = BUILT_IN / f"{name_or_path}.yaml"
    path = built_in if built_in.is_file() else Path(name_or_path)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in BUILT_IN.glob("*.yaml")))
        raise UsageError(
            f"prompt template not found: {name_or_path}",
            why="it is neither a built-in template nor a file",
            mend=f"give the path of a YAML file, or one of: {names}",
        )
    try:
        return Template.model_validate(strict_yaml.parse(path.read_text(encoding="utf-8"), str(path))[0])
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise UsageError(
            f"prompt template cannot be used: {path}",
            why=" ".join(str(error).split()),
            mend=f"compare it with the built-in one: {BUILT_IN / 'default.yaml'}",
        ) from error


class Views:
    """Renders both views with the model's own chat template.

    Args:
        tokenizer: A transformers tokenizer.
        config: What the views say.
        eos_ids: Ids that end a response (a model may have several).
    """

    def __init__(self, tokenizer: Any, config: ViewsConfig, eos_ids: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.template = load_template(config.template)
        self.stop_ids = tuple(dict.fromkeys(eos_ids))
        _require_chat_template(tokenizer)

    def prior_prompt(self, question: Question) -> list[int]:
        """Ids of the plain prompt.

        Raises:
            UsageError: The template cannot be rendered.
        """
        return self._prompt(self._user_turn(question, note_answer=None))[1]

    def posterior_prompt(self, question: Question, answer: str | None = None) -> list[int]:
        """Ids of the prompt with the note; `answer` replaces the reference answer in it (counterfactual)."""
        return self._prompt(self._user_turn(question, note_answer=question.answer if answer is None else answer))[1]

    def preview(self, question: Question, view: View) -> PromptPreview:
        """A question's prompt as it is rendered."""
        text, ids = self._prompt(self._user_turn(question, note_answer=None if view == PRIOR else question.answer))
        return self._preview(question.id, view, text, ids)

    def previews(self, questions: Sequence[Question]) -> list[PromptPreview]:
        """Both views of the first questions."""
        return [self.preview(question, view) for question in questions[:SHOWN_QUESTIONS] for view in (PRIOR, POSTERIOR)]

    def stored_preview(self, question_id: str, view: View, ids: list[int]) -> PromptPreview:
        """A prompt of which only the ids are there."""
        return self._preview(question_id, view, self.tokenizer.decode(ids, skip_special_tokens=False), ids)

    def _preview(self, question_id: str, view: View, text: str, ids: list[int]) -> PromptPreview:
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        return PromptPreview(view=view, question_id=question_id, text=text, ids=ids, tokens=tokens)

    def prompt(self, question: Question, view: View) -> list[int]:
        """Ids of a view's prompt."""
        return self.prior_prompt(question) if view == PRIOR else self.posterior_prompt(question)

    def control_token_in(self, question: Question) -> str | None:
        """A control token that a question's text, options or answer spells out, e.g. `<|im_end|>`; None when none does.

        The tokenizer would take it for the real one: the question could end its own turn, or the thinking.
        """
        ids = self.encode("\n".join([question.text, *question.options, question.answer]))
        return next((self._control_tokens[token] for token in ids if token in self._control_tokens), None)

    @cached_property
    def _control_tokens(self) -> dict[int, str]:
        """Special tokens, and the tags of the thinking where they are added tokens."""
        end = self.config.end_of_thinking or ""
        return {
            index: token.content
            for index, token in self.tokenizer.added_tokens_decoder.items()
            if token.special or token.content in (end, end.replace("/", ""))
        }

    @cached_property
    def end_of_thinking_ids(self) -> list[int]:
        """Ids that end a thinking which does not end by itself; empty when completions hold no thinking."""
        return self.encode(self.config.end_of_thinking) if self.thinks and self.config.end_of_thinking else []

    @cached_property
    def thinks(self) -> bool:
        """Whether completions begin with thinking: the model has an end of it, and the prompt has not written it."""
        end = self.config.end_of_thinking
        return end is not None and end not in self.assistant_tail

    def thinking_length(self, completion_ids: Sequence[int]) -> int | None:
        """|z|: number of leading ids up to and including the first end of thinking.

        An end that is not one added token is looked for in the text, since its ids depend on its neighbours; z then
        ends with the id that completes it.

        Returns:
            None when there is no end of thinking; 0 for models that do not think.
        """
        if not self.thinks:
            return 0
        ids, end = [int(token) for token in completion_ids], str(self.config.end_of_thinking)
        if (single := self.tokenizer.get_added_vocab().get(end)) is not None:
            return ids.index(single) + 1 if single in ids else None
        offset = self.decode(ids).find(end)
        return None if offset < 0 else self.tokens_before(ids, offset + len(end) - 1) + 1

    @cached_property
    def empty_thinking_ids(self) -> list[int]:
        """Ids of an empty z, placed behind the prior prompt."""
        text = self.template.empty_thinking
        if text is None and self.thinks:
            end = str(self.config.end_of_thinking)
            opening = end.replace("/", "")
            text = end if self.assistant_tail.rstrip().endswith(opening) else f"{opening}\n\n{end}"
        return self.encode(text or "")

    @cached_property
    def answer_cue_ids(self) -> list[int]:
        return self.encode(self.template.answer_cue)

    def answer_ids(self, answer: str) -> list[int]:
        """Ids of an answer string with its closing delimiter, as they follow the cue."""
        cue_and_answer = self.encode(self.template.answer_cue + answer + self.template.answer_close)
        cue = self.answer_cue_ids
        if cue_and_answer[: len(cue)] == cue:
            return cue_and_answer[len(cue) :]
        return self.encode(answer + self.template.answer_close)

    @cached_property
    def assistant_tail(self) -> str:
        """The text both prompts end in: all that stands behind the user's own words."""
        _, probe, after = self._render(_PROBE).rpartition(_PROBE)
        if not probe:
            raise UsageError(
                "the model's chat template does not show the user's turn",
                why=f"a chat with one user turn renders as {after!r}",
                mend="use a chat template that writes user turns as they are",
            )
        return after

    @cached_property
    def fingerprint(self) -> str:
        """Changes with every text that can change a prompt or a cut."""
        parts = {
            "template": self.template.model_dump(),
            "chat_template": self.tokenizer.chat_template,
            "chat_template_kwargs": self.config.chat_template_kwargs,
            "end_of_thinking": self.config.end_of_thinking,
            "stop_ids": self.stop_ids,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def _user_turn(self, question: Question, note_answer: str | None) -> str:
        variables = {"question": question.text, "options": list(question.options)}
        try:
            text = _JINJA.from_string(self.template.prior).render(variables)
            if note_answer is not None:
                text += _JINJA.from_string(self.template.note).render(variables, answer=note_answer)
        except _RENDERING as error:
            raise UsageError(
                f"prompt template {self.template.name!r} cannot be rendered for question {question.id}",
                why=" ".join(str(error).split()),
                mend="the variables are question and options, and answer in the note",
            ) from error
        return text

    def _prompt(self, user_turn: str) -> tuple[str, list[int]]:
        text = self._render(user_turn)
        ids = self.encode(text)
        tail = self.encode(self.assistant_tail)
        if ids[len(ids) - len(tail) :] != tail:
            raise UsageError(
                "the two views would not end in the same assistant prefix",
                why=f"ids of {self.assistant_tail!r} change with the text before it, so paths could not move as ids",
                mend="use a chat template whose generation prompt starts with a special token",
            )
        return text, ids

    def _render(self, user_turn: str) -> str:
        """The chat's text up to and including the assistant prefix."""
        messages = [{"role": "user", "content": user_turn}]
        if self.template.system is not None:
            messages.insert(0, {"role": "system", "content": self.template.system})
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=True,
                **{"strftime_now": _refuse_todays_date, **self.config.chat_template_kwargs},
            )
        except _RENDERING as error:
            raise UsageError(
                "the model's chat template cannot render the prompt",
                why=" ".join(str(error).split()) or type(error).__name__,
                mend="check views.chat_template_kwargs, and the template's system text: some models take none",
            ) from error
        return rendered + self.template.assistant_prefix

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids as they stand, without special tokens."""
        text: str = self.tokenizer.decode(
            [int(token) for token in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def tokens_before(self, ids: Sequence[int], offset: int) -> int:
        """Number of leading ids that stand wholly before a character offset of the text of all ids."""
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if len(self.decode(ids[: middle + 1])) > offset:
                high = middle
            else:
                low = middle + 1
        return low

    def encode(self, text: str) -> list[int]:
        """Ids of a text as it stands: the chat template has already written every special token."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def load_views(model: LocalModel, config: ViewsConfig) -> Views:
    """The two views with a model's tokenizer."""
    return Views(model.tokenizer, config, model.eos_ids)


def _require_chat_template(tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        raise UsageError(
            "the model's tokenizer has no chat template",
            why="prompts are rendered with the model's own chat template",
            mend="use an instruct or reasoning model, or put a chat_template.jinja into its folder",
        )


def _refuse_todays_date(pattern: str) -> NoReturn:
    raise UsageError(
        "the model's chat template writes today's date into every prompt",
        why="prompts would differ between phases that run on different days",
        mend="pin it: --set 'views.chat_template_kwargs={date_string: 26 Jul 2024}' (the name is the template's own)",
    )
