"""Prior and posterior prompts as token ids, and the place where thinking ends.

Both views are the same chat. The posterior's user turn is the prior's with a private note behind it, and both prompts
end in the same assistant prefix, id for id, so that a path moves between the views as token ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field, ValidationError

from vpgea.config import RunConfig, Section, ViewsConfig
from vpgea.errors import UsageError
from vpgea.questions import Question
from vpgea.records import POSTERIOR, PRIOR, View

BUILT_IN = Path(__file__).parent / "templates"
_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


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


@dataclass(frozen=True)
class PromptPreview:
    """A rendered prompt, for people to look at; tokens has one visible string per id."""

    view: View
    question_id: str
    text: str
    ids: list[int]
    tokens: list[str]


def load_template(name_or_path: str) -> Template:
    """A built-in template by name, or a user's YAML file. Raises UsageError."""
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
        return Template.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise UsageError(
            f"prompt template cannot be used: {path}",
            why=" ".join(str(error).split()),
            mend=f"compare it with the built-in one: {BUILT_IN / 'default.yaml'}",
        ) from error


class Views:
    """Renders both views with the model's own chat template.

    tokenizer: a transformers tokenizer. eos_ids: ids that end a response (a model may have several).
    """

    def __init__(self, tokenizer: Any, config: ViewsConfig, eos_ids: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.template = load_template(config.template)
        self.stop_ids = tuple(dict.fromkeys(eos_ids))
        _require_usable_chat_template(tokenizer, config)

    def prior_prompt(self, question: Question) -> list[int]:
        """Ids of the plain prompt. Raises UsageError when the template cannot be rendered."""
        return self._prompt(self._user_turn(question, note_answer=None))[1]

    def posterior_prompt(self, question: Question, answer: str | None = None) -> list[int]:
        """Ids of the prompt with the note; `answer` replaces the reference answer in it (counterfactual)."""
        return self._prompt(self._user_turn(question, note_answer=question.answer if answer is None else answer))[1]

    def preview(self, question: Question, view: View) -> PromptPreview:
        text, ids = self._prompt(self._user_turn(question, note_answer=None if view == PRIOR else question.answer))
        return PromptPreview(view, question.id, text, ids, self.tokenizer.convert_ids_to_tokens(ids))

    def too_long(self, question: Question) -> bool:
        """True when either view's prompt is over the limit; the posterior's is the longer one."""
        return len(self.posterior_prompt(question)) > self.config.max_prompt_tokens

    @cached_property
    def end_of_thinking(self) -> tuple[tuple[int, ...], ...]:
        """Id sequences that end the thinking, longest first; empty when the model has no such text.

        One id where the text is an added token. Else merges depend on the neighbours, so that the text is encoded
        in the contexts in which models write it.
        """
        text = self.config.end_of_thinking
        if text is None:
            return ()
        if (single := self.tokenizer.get_added_vocab().get(text)) is not None:
            return ((single,),)
        found = {tuple(self.encode(text))}
        for before in ("\n", "."):
            for after in ("", "\n", "\n\n"):
                with_text, without = self.encode(before + text + after), self.encode(before)
                if with_text[: len(without)] == without and text in self.tokenizer.decode(with_text[len(without) :]):
                    found.add(tuple(with_text[len(without) :]))
        return tuple(sorted(found, key=len, reverse=True))

    def thinking_length(self, completion_ids: Sequence[int]) -> int | None:
        """|z|: number of leading ids up to and including the first end of thinking; None when there is none."""
        ids = [int(token) for token in completion_ids]
        for position in range(len(ids)):
            for end in self.end_of_thinking:
                if tuple(ids[position : position + len(end)]) == end:
                    return position + len(end)
        return None

    @cached_property
    def empty_thinking_ids(self) -> list[int]:
        """Ids of an empty z, placed behind the prior prompt."""
        text = self.template.empty_thinking
        if text is None:
            end = self.config.end_of_thinking or ""
            opened = self.assistant_tail.rstrip().endswith(end.replace("/", "")) if end else False
            text = end if opened or not end else f"{end.replace('/', '')}\n\n{end}"
        return self.encode(text)

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
        """The text both prompts end in: the chat template's generation prompt and the assistant prefix."""
        probe = [{"role": "user", "content": "Q"}]
        closed = self._render(probe, generation_prompt=False)
        opened = self._render(probe, generation_prompt=True)
        return (opened[len(closed) :] if opened.startswith(closed) else "") + self.template.assistant_prefix

    @cached_property
    def fingerprint(self) -> str:
        """Changes with every text that can change a prompt or a cut."""
        parts = {
            "template": self.template.model_dump(),
            "chat_template": self.tokenizer.chat_template,
            "chat_template_kwargs": self.config.chat_template_kwargs,
            "end_of_thinking": self.end_of_thinking,
            "stop_ids": self.stop_ids,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def _user_turn(self, question: Question, note_answer: str | None) -> str:
        variables = {"question": question.text, "options": list(question.options)}
        try:
            text = _JINJA.from_string(self.template.prior).render(variables)
            if note_answer is not None:
                text += _JINJA.from_string(self.template.note).render(variables, answer=note_answer)
        except TemplateError as error:
            raise UsageError(
                f"prompt template {self.template.name!r} cannot be rendered for question {question.id}",
                why=str(error),
                mend="the variables are question and options, and answer in the note",
            ) from error
        return text

    def _prompt(self, user_turn: str) -> tuple[str, list[int]]:
        messages = [{"role": "user", "content": user_turn}]
        if self.template.system is not None:
            messages.insert(0, {"role": "system", "content": self.template.system})
        text = self._render(messages, generation_prompt=True) + self.template.assistant_prefix
        ids = self.encode(text)
        tail = self.encode(self.assistant_tail)
        if tail and ids[-len(tail) :] != tail:
            raise UsageError(
                "the two views would not end in the same assistant prefix",
                why=f"ids of {self.assistant_tail!r} change with the text before it, so paths could not move as ids",
                mend="use a chat template whose generation prompt starts with a special token",
            )
        return text, ids

    def _render(self, messages: list[dict[str, str]], *, generation_prompt: bool) -> str:
        rendered: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generation_prompt, **self.config.chat_template_kwargs
        )
        return rendered

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        text: str = self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=True)
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


def preview(config: RunConfig, questions: Sequence[Question], count: int = 2) -> list[PromptPreview]:
    """The first `count` questions rendered in each view, with the run's model and template."""
    from vpgea.modeling.load import load_views

    views = load_views(config)
    return [views.preview(question, view) for question in questions[:count] for view in (PRIOR, POSTERIOR)]


def _require_usable_chat_template(tokenizer: Any, config: ViewsConfig) -> None:
    if not tokenizer.chat_template:
        raise UsageError(
            "the model's tokenizer has no chat template",
            why="prompts are rendered with the model's own chat template",
            mend="use an instruct or reasoning model, or put a chat_template.jinja into its folder",
        )
    if "strftime_now" in str(tokenizer.chat_template) and "date_string" not in config.chat_template_kwargs:
        raise UsageError(
            "the model's chat template writes today's date into every prompt",
            why="prompts would differ between phases that run on different days",
            mend="pin it: --set 'views.chat_template_kwargs={date_string: 26 Jul 2024}'",
        )
