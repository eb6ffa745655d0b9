"""The model's chat template: what it renders, where it ends an assistant's turn, and what is odd about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, meta

from vpgea.config.schema import ViewsConfig
from vpgea.errors import UsageError, nearest
from vpgea.modeling.tokenizer import encode

RENDERING = (  # what templates raise
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
_DATE = "strftime_now"  # the function by which templates ask for today's date
_USER, _ASSISTANT = "vpgea-probe", "vpgea-reply"  # stand for turns where only the text around them matters


class Chat:
    """Renders one user turn, behind a system text if there is one.

    Args:
        tokenizer: A transformers tokenizer.
        arguments: Variables that the template is given besides the messages (views.chat_template_kwargs).
        system: The system text; None for the template's own.
    """

    def __init__(self, tokenizer: Any, arguments: Mapping[str, Any], system: str | None) -> None:
        if not tokenizer.chat_template:
            raise UsageError(
                "the model's tokenizer has no chat template",
                why="prompts are rendered with the model's own chat template",
                mend="use an instruct or reasoning model, or put a chat_template.jinja into its folder",
            )
        self.tokenizer = tokenizer
        self._given = dict(arguments)
        self._arguments = {**self._given, _DATE: _pinned_date(arguments.get(_DATE))}
        self._system = [] if system is None else [{"role": "system", "content": system}]

    def render(self, user_turn: str) -> str:
        """The chat's text up to and including the generation prompt.

        Raises:
            UsageError: The template cannot render it, or writes a date that is not pinned.
        """
        try:
            return self._rendered([*self._system, _turn("user", user_turn)])
        except TemplateSyntaxError as error:
            raise UsageError(
                "the model's chat template cannot be read",
                why=f"line {error.lineno}: {error.message}",
                mend="restore the model's chat_template.jinja, or the chat_template of its tokenizer_config.json",
            ) from error
        except RENDERING as error:
            raise UsageError(
                "the model's chat template cannot render the prompt",
                why=" ".join(str(error).split()) or type(error).__name__,
                mend="check views.chat_template_kwargs, and the template's system text: some models take none",
            ) from error

    @cached_property
    def tail(self) -> str:
        """All that stands behind the user's own words."""
        _, probe, after = self.render(_USER).rpartition(_USER)
        if not probe:
            raise UsageError(
                "the model's chat template does not show the user's turn",
                why=f"a chat with one user turn renders as {after!r}",
                mend="use a chat template that writes user turns as they are",
            )
        return after

    def require_one_start(self, ids: Sequence[int]) -> None:
        """See that a prompt does not begin twice.

        Raises:
            UsageError: It begins with two beginning-of-sequence tokens.
        """
        start = self.tokenizer.bos_token_id
        if start is not None and list(ids[:2]) == [start, start]:
            raise UsageError(
                "the prompt begins with two beginning-of-sequence tokens",
                why=f"{self.tokenizer.bos_token} is written by the chat template and once more behind it; models were "
                "trained with one, and answer much worse behind two",
                mend="take one of them out of the chat template, or out of the system text of views.template",
            )

    @cached_property
    def turn_ends(self) -> list[int]:
        """The id with which the template ends an assistant's turn, where that is one token of its own."""
        if self._reply is None or (not self._generation_prompt and self._reply[1] == self.tail):
            return []  # what stands behind every turn opens the next
        added = self.tokenizer.added_tokens_decoder
        ids = [token for token in encode(self.tokenizer, self._reply[1].lstrip()) if token in added][:1]
        begins = self._reply[1].lstrip().startswith(tuple(added[token].content for token in ids))
        opening = set(encode(self.tokenizer, self._generation_prompt))
        return [token for token in ids if begins and token not in opening]

    @property
    def unknown_arguments(self) -> list[str]:
        """Of each argument that the template never reads, that it changes nothing: it is often misspelt."""
        if not self._given:
            return []
        known = self._variables
        remarks = []
        for name in self._given.keys() - known:
            near = nearest(name, known)
            meant = f"; did you mean {near}?" if near else ""
            what = f"views.chat_template_kwargs.{name} has no effect: the chat template reads no such variable"
            remarks.append(what + meant)
        return sorted(remarks)

    def unknown_end(self, end: str | None, texts: Iterable[str | None]) -> list[str]:
        """What is to be said where an end of thinking is the default, and nothing of the model or `texts` knows it."""
        default: str = ViewsConfig.model_fields["end_of_thinking"].default
        shown = any(end in text for text in (self.tokenizer.chat_template, *texts) if text) if end else False
        if end != default or shown or end in self.tokenizer.get_added_vocab():
            return []
        return [
            f"neither the model's tokenizer nor its chat template nor views.template knows {end}: the model seems not "
            "to think between tags, and a response without one counts as cut off. Set views.end_of_thinking to the "
            "text with which it goes over to its answer, or ask for one in a template of your own (views.template); "
            "null for a model that only answers, which leaves nothing to draw from the posterior view "
            "(rollout.posterior_samples=0)"
        ]

    @property
    def missing_generation_prompt(self) -> str | None:
        """That a prompt ends before the words that stand in front of every answer; None where it does not."""
        tail = self.tail
        if self._generation_prompt or self._reply is None or self._reply[0].strip() == tail.strip():
            return None
        before = self._reply[0].removeprefix(tail)
        return (
            "the chat template writes no generation prompt: prompts end in the user's turn, and the model may go on "
            f"with it; in front of an answer stands {before!r}, which assistant_prefix of views.template can add"
        )

    @cached_property
    def _variables(self) -> set[str]:
        """Names that the template reads and does not set itself."""
        from transformers.utils.chat_template_utils import _compile_jinja_template

        text = self.tokenizer.get_chat_template()
        tree = _compile_jinja_template(text).environment.parse(text)
        return set(meta.find_undeclared_variables(tree)) | ({_DATE} if _DATE in text else set())

    @cached_property
    def _generation_prompt(self) -> str:
        """What the template writes only where an answer is to follow."""
        messages = [*self._system, _turn("user", _USER)]
        with_it, without = self.render(_USER), self._rendered(messages, add_generation_prompt=False)
        return with_it.removeprefix(without) if with_it.startswith(without) else with_it

    @cached_property
    def _reply(self) -> tuple[str, str] | None:
        """(between user's and assistant's words, behind them) of a chat with an answer; None where it takes none."""
        messages = [*self._system, _turn("user", _USER), _turn("assistant", _ASSISTANT)]
        try:
            text = self._rendered(messages, add_generation_prompt=False)
        except RENDERING:  # a template for one turn alone: it names no end of an answer
            return None
        _, _, behind = text.rpartition(_USER)
        between, reply, after = behind.partition(_ASSISTANT)
        return (between, after) if reply else None

    def _rendered(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        text: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **self._arguments
        )
        return text


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _pinned_date(pin: Any) -> Any:
    """What a template gets as strftime_now: a fixed date, or without a pin an error."""
    if pin is None:
        return _refuse_todays_date
    try:
        day = date.fromisoformat(pin)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"views.chat_template_kwargs.{_DATE} is no date",
            why=f"it is {pin!r}",
            mend="write it as year, month and day: 2024-07-26",
        ) from error
    return day.strftime


def _refuse_todays_date(pattern: str) -> str:
    raise UsageError(
        "the model's chat template writes today's date into every prompt",
        why="prompts would differ between phases that run on different days",
        mend=f"pin it: --set views.chat_template_kwargs.{_DATE}=2024-07-26 (or date_string, where the template reads "
        "one)",
    )
