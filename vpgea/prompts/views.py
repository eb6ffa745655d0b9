"""Prior and posterior prompts as token ids, and the place where thinking ends.

Both views are the same chat. The posterior's user turn is the prior's with a private note behind it, and both prompts
end in the same assistant prefix, id for id, so that a path moves between the views as token ids.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vpgea.config.schema import ViewsConfig
from vpgea.errors import UsageError
from vpgea.grading.references import final_answer
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.tokenizer import LoadedTokenizer, decode, encode
from vpgea.prompts.benchmark import PROTOCOL_KEEPS, BenchmarkTurns
from vpgea.prompts.chat import Chat
from vpgea.prompts.other_answers import other_answers
from vpgea.prompts.texts import load_template
from vpgea.prompts.user_turns import WITHOUT_ANSWER, UserTurns
from vpgea.prompts.wrong_answers import wrong_answer
from vpgea.questions.load import Question
from vpgea.storage.schemas import POSTERIOR, PRIOR, View

# Those of version 0.1.0 stand for the built-in ones of every version, which change no prompt: its runs go on.
_FINGERPRINTED_PHRASES = [
    r"\bprivate[ _]note\b",
    r"\b(according to|as (stated|given|said) in|from) the note\b",
    r"\bthe note\b",
    r"\b(given|provided|reference|expected|known|stated) (final )?answer\b",
    r"\banswer (is|was) (already )?(given|provided|known)\b",
    r"\b(we|i)('re| are| was| were|'ve been| have been|'m| am) (told|given) (that )?the (final )?answer\b",
]

# How answers begin: each may make one token with the end of the cue.
_ANSWERS = (
    *("0", "12", "-5", "−5", "+5", ".5", "x", "A", "Yes", "é", "√2", "π", "½", "∞", "中"),
    *(r"\frac{1}{2}", r"\sqrt{2}", r"\{1\}", r"\$5", "$5$", "(1, 2)", "[0, 1)", "{1}", "|x|", "<2", "=2"),
    *('"a"', "'a'", "#1", " 5", "\n5", "}"),
)

SHOWN_QUESTIONS = 2  # of which prompts are shown to people


@dataclass(frozen=True, kw_only=True)
class PromptPreview:
    """A rendered prompt, for people to look at; tokens has one visible string per id."""

    view: View
    question_id: str
    text: str
    ids: list[int]
    tokens: list[str]


class Views:
    """Renders both views with the model's own chat template.

    Args:
        tokenizer: A transformers tokenizer.
        config: What the views say.
        eos_ids: Ids that end a response (a model may have several).
        grader: Whose reading of a reference the note holds: its final answer, never a worked solution around it.
        more_ends: Further ones, which are no part of the fingerprint: runs go on that were begun without them.
        vocabulary: Rows of the model's embedding, beyond which no id can be fed; None: not known.
        loaded: How the tokenizer was found, where it was loaded from files.
        asked: What the prior is asked, where a benchmark's protocol says it.
        questions: Whose answers the notes of others name, where `views.note` is `other`.
    """

    def __init__(
        self,
        tokenizer: Any,
        config: ViewsConfig,
        eos_ids: Sequence[int],
        *,
        grader: str = "math",
        more_ends: Sequence[int] = (),
        vocabulary: int | None = None,
        loaded: LoadedTokenizer | None = None,
        asked: BenchmarkTurns | None = None,
        questions: Sequence[Question] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.grader = grader
        self.template = load_template(config.template)
        self.turns = UserTurns(self.template)
        self.asked, self._questions = asked, questions
        system = self.template.system if asked is None else asked.only_system(self.template)
        self.chat = Chat(tokenizer, config.chat_template_kwargs, system)
        self._eos_ids, self._more_ends = tuple(dict.fromkeys(eos_ids)), tuple(more_ends)
        self._vocabulary = sys.maxsize if vocabulary is None else vocabulary
        self._loaded = loaded or LoadedTokenizer(tokenizer=tokenizer, remarks=[], differs="")

    @property
    def remarks(self) -> list[str]:
        """What people should be told of the tokenizer and the prompts before anything is sampled."""
        missing, template = self.chat.missing_generation_prompt, self.template
        texts = (template.system, template.prior, template.note, template.assistant_prefix)
        return [
            *self._loaded.remarks,
            *self.chat.unknown_arguments,
            *([missing] if missing and not template.assistant_prefix else []),
            *self.chat.unknown_end(self.config.end_of_thinking, texts),
        ]

    @property
    def end_shown(self) -> str:
        """The end of thinking for people, on one line."""
        end = str(self.config.end_of_thinking)
        return end if end.isprintable() else repr(end)

    def require_ends(self) -> None:
        """See that a response and its thinking can end. Raises what `stop_ids` does."""
        assert self.stop_ids

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a response: those of the model's files, then its chat template's end of an assistant's turn.

        Raises:
            UsageError: There is none, or sampling would stop inside the end of thinking.
        """
        thinking = self.end_of_thinking_ids
        named = dict.fromkeys([*self._eos_ids, *self._more_ends])
        if inside := [token for token in thinking if token in named]:
            raise UsageError(
                f"views.end_of_thinking={self.end_shown} can never be written",
                why=f"sampling stops at {self.tokenizer.convert_ids_to_tokens(inside[0])}, which is part of it",
                mend="give the end of thinking without it, or take it out of the model's eos_token_id",
            )
        named.update(dict.fromkeys(token for token in self.chat.turn_ends if token not in thinking))
        if not any(token < self._vocabulary for token in named):
            raise UsageError(
                "the model names no end-of-sequence id",
                why="generation_config.json, config.json, the tokenizer and its chat template have none that the "
                "model can write, so no response would ever end",
                mend="set eos_token_id in the model's generation_config.json",
            )
        return tuple(named)

    def prior_prompt(self, question: Question) -> list[int]:
        """Ids of the plain prompt.

        Raises:
            UsageError: The template cannot be rendered.
        """
        if self.asked is not None:
            return self._prompt(self.asked.turns[question.id])
        return self._prompt(self.template_turn(question))

    def template_turn(self, question: Question) -> str:
        """The user turn by which the model is trained, whatever a benchmark's protocol asks."""
        return self.turns.plain(question)

    def posterior_prompt(self, question: Question, answer: str | None = None) -> list[int]:
        """Ids of the prompt with the note; `answer` replaces the final answer in it (counterfactual)."""
        if answer is None and self.config.note in WITHOUT_ANSWER:
            return self._prompt(self.turns.without_answer(question, self.config.note))
        answer = self._noted_answer(question) if answer is None else answer
        return self._prompt(self.turns.with_answer(question, answer))

    def _noted_answer(self, question: Question) -> str:
        """What the note says: the reference's final answer, or in a control another one."""
        if self.config.note == "other":
            if (answer := self._other_answers.get(question.id)) is None:
                raise UsageError(
                    f"question {question.id} has no note of another question",
                    why="views.note is other, and it is none of the questions that can be asked",
                    mend="look for control tokens in its text and answer",
                )
            return answer
        return wrong_answer(question, self.grader) if self.config.note == "wrong" else self.final_answer(question)

    @cached_property
    def _other_answers(self) -> dict[str, str]:
        """Of questions without control tokens: those of an answer would be read in another question's prompt."""
        usable = [question for question in self._questions if self.control_token_in(question) is None]
        return other_answers(usable, self.grader)

    def final_answer(self, question: Question) -> str:
        """What the grader compares of a question's reference."""
        return final_answer(question.answer, self.grader)

    def preview(self, question: Question, view: View) -> PromptPreview:
        """A question's prompt as it is rendered."""
        return self.stored_preview(question.id, view, self.prompt(question, view))

    def previews(self, questions: Sequence[Question]) -> list[PromptPreview]:
        """Both views of the first questions."""
        return [self.preview(question, view) for question in questions[:SHOWN_QUESTIONS] for view in (PRIOR, POSTERIOR)]

    def stored_preview(self, question_id: str, view: View, ids: list[int]) -> PromptPreview:
        """A prompt as the model reads it: its text is that of the ids."""
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        return PromptPreview(
            view=view, question_id=question_id, text=self.decode(ids, special=True), ids=ids, tokens=tokens
        )

    def prompt(self, question: Question, view: View) -> list[int]:
        """Ids of a view's prompt."""
        return self.prior_prompt(question) if view == PRIOR else self.posterior_prompt(question)

    def control_token_in(self, question: Question) -> str | None:
        """A control token that a question's text, options or answer spells out, e.g. `<|im_end|>`; None when none does.

        The tokenizer would take it for the real one: the question could end its own turn, or the thinking.
        """
        asked = [] if self.asked is None else [self.asked.turns[question.id]]
        ids = self.encode("\n".join([question.text, *question.options, question.answer, *asked]))
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
        """Ids that end a thinking which does not end by itself; empty when completions hold no thinking.

        Raises:
            UsageError: The tokenizer cannot spell it.
        """
        if not self.thinks:
            return []
        ids = self.encode(str(self.config.end_of_thinking))
        if not ids or self.tokenizer.unk_token_id in ids or max(ids) >= self._vocabulary:
            raise UsageError(
                f"views.end_of_thinking={self.end_shown} cannot be written by this model",
                why="its tokenizer has no ids for all of it that the model could write",
                mend="give the text with which the model ends its thinking; null for a model that does not think",
            )
        return ids

    @cached_property
    def thinks(self) -> bool:
        """Whether completions begin with thinking: the model has an end of it, and the prompt has not written it."""
        end = self.config.end_of_thinking
        return end is not None and end not in self.assistant_tail

    def thinking_length(self, completion_ids: Sequence[int]) -> int | None:
        """|z|: number of leading ids up to and including the first end of thinking.

        An end that is not one added token is looked for in the text, since its ids depend on its neighbours; z then
        ends with the id that completes it. One with special tokens is looked for among the ids too, since decoders may
        put spaces beside those.

        Returns:
            None when there is no end of thinking; 0 for models that do not think.
        """
        if not self.thinks:
            return 0
        ids, end = [int(token) for token in completion_ids], str(self.config.end_of_thinking)
        if (single := self.tokenizer.get_added_vocab().get(end)) is not None:
            return ids.index(single) + 1 if single in ids else None
        wanted = self.end_of_thinking_ids
        special = not self._special_ids.isdisjoint(wanted)
        found = []
        if (offset := self.decode(ids, special=special).find(end)) >= 0:
            found.append(self.tokens_before(ids, offset + len(end) - 1, special=special) + 1)
        if special:
            places = range(len(ids) - len(wanted) + 1)
            found += [place + len(wanted) for place in places if ids[place : place + len(wanted)] == wanted][:1]
        return min(found, default=None)

    @cached_property
    def _special_ids(self) -> set[int]:
        return {index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}

    @cached_property
    def empty_thinking_ids(self) -> list[int]:
        """Ids of an empty z, placed behind the prior prompt."""
        text = self.template.empty_thinking
        if text is None and self.thinks:
            end = str(self.config.end_of_thinking)
            opening = end.replace("/", "")
            # an end that is no tag has nothing that opens it
            opened = opening == end or self.assistant_tail.rstrip().endswith(opening)
            text = end if opened else f"{opening}\n\n{end}"
        return self.encode(text or "")

    @cached_property
    def answer_cue_ids(self) -> list[int]:
        r"""Ids of the cue as far as no answer changes them: `{` is the answer's where `{\` and `{-` are tokens."""
        cue = self.encode(self.template.answer_cue)
        wholes = (self.encode(self._answer_text(answer)) for answer in _ANSWERS)
        return cue[: min(_shared(cue, whole) for whole in wholes)]

    def answer_ids(self, answer: str) -> list[int]:
        """Ids behind `answer_cue_ids`: the rest of the cue, the answer and its closing delimiter, as one text.

        An answer that changes even those is encoded behind them, by itself.
        """
        cue, whole = self.answer_cue_ids, self.encode(self._answer_text(answer))
        if _shared(cue, whole) == len(cue):
            return whole[len(cue) :]
        begun = self.template.answer_cue.removeprefix(self.decode(cue))
        return self.encode(begun + answer + self.template.answer_close)

    def _answer_text(self, answer: str) -> str:
        return self.template.answer_cue + answer + self.template.answer_close

    @cached_property
    def assistant_tail(self) -> str:
        """The text both prompts end in: all that stands behind the user's own words."""
        return self.chat.tail + self.template.assistant_prefix

    @cached_property
    def fingerprint(self) -> str:
        """Changes with every text that can change a prompt or a cut."""
        template = self.template.model_dump()
        if self.asked is not None:  # its texts have a fingerprint of their own
            template = {key: template[key] for key in PROTOCOL_KEEPS}
        texts = {name: template.pop(name, None) for name in WITHOUT_ANSWER.values()}
        own = WITHOUT_ANSWER.get(self.config.note, "")  # the others change no prompt
        if template["leak_phrases"] == load_template("default").leak_phrases:
            template["leak_phrases"] = _FINGERPRINTED_PHRASES
        parts = {
            "template": template,
            "chat_template": self.tokenizer.chat_template,
            "chat_template_kwargs": self.config.chat_template_kwargs,
            "end_of_thinking": self.config.end_of_thinking,
            "stop_ids": self._eos_ids,
            **({"tokenizer": self._loaded.differs} if self._loaded.differs else {}),
            **({own: texts[own]} if texts.get(own) else {}),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def _prompt(self, user_turn: str) -> list[int]:
        text = self.chat.render(user_turn) + self.template.assistant_prefix
        ids = self.encode(text)
        if (largest := max(ids, default=0)) >= self._vocabulary:
            raise UsageError(
                f"the tokenizer writes ids that the model does not have, e.g. {largest:,}",
                why=f"it is {self.tokenizer.convert_ids_to_tokens(largest)}, and the embedding has "
                f"{self._vocabulary:,} rows",
                mend="use the tokenizer that belongs to the model, or the model whose embedding was resized for it",
            )
        self.chat.require_one_start(ids)
        tail = self.encode(self.assistant_tail)
        if ids[len(ids) - len(tail) :] != tail:
            raise UsageError(
                "the two views would not end in the same assistant prefix",
                why=f"ids of {self.assistant_tail!r} change with the text before it, so paths could not move as ids",
                mend="use a chat template whose generation prompt starts with a special token",
            )
        return ids

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Text of ids as they stand, without special tokens unless asked for."""
        return decode(self.tokenizer, ids, special=special)

    def content_length(self, z: Sequence[int]) -> int:
        """Number of leading ids of a thinking before those that end it: all of them where it has no end."""
        if self.thinking_length(z) != len(z) or not self.thinks:
            return len(z)
        end = str(self.config.end_of_thinking)
        if end in self.tokenizer.get_added_vocab():
            return len(z) - 1
        special = not self._special_ids.isdisjoint(self.end_of_thinking_ids)
        return self.tokens_before(z, self.decode(z, special=special).rfind(end), special=special)

    def tokens_before(self, ids: Sequence[int], offset: int, *, special: bool = False) -> int:
        """Number of leading ids that stand wholly before a character offset of the text of all ids."""
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if len(self.decode(ids[: middle + 1], special=special)) > offset:
                high = middle
            else:
                low = middle + 1
        return low

    def encode(self, text: str) -> list[int]:
        """Ids of a text as it stands: the chat template has already written every special token."""
        return encode(self.tokenizer, text)


def load_views(
    model: LocalModel,
    config: ViewsConfig,
    grader: str = "math",
    *,
    begun: Mapping[str, str] | None = None,
    asked: BenchmarkTurns | None = None,
    questions: Sequence[Question] = (),
) -> Views:
    """The two views with a model's tokenizer.

    grader: whose reading of references the notes hold.
    begun: inputs of what is continued or compared with. Where its prompts were made with the tokenizer in its declared
    class, which version 0.1.0 always took, they go on to be.
    asked: what the prior is asked, where a benchmark's protocol says it.
    questions: whose answers the notes of others name, where views.note is other.
    """
    views = _views(model, config, grader, model.loaded_tokenizer, asked, questions)
    if begun is None or begun.get("template") in (None, views.fingerprint):
        return views
    earlier = model.declared_tokenizer
    if (
        earlier is not None
        and (before := _views(model, config, grader, earlier, asked, questions)).fingerprint == begun["template"]
    ):
        return before
    return views


def _views(
    model: LocalModel,
    config: ViewsConfig,
    grader: str,
    loaded: LoadedTokenizer,
    asked: BenchmarkTurns | None,
    questions: Sequence[Question],
) -> Views:
    return Views(
        loaded.tokenizer,
        config,
        model.eos_ids,
        grader=grader,
        more_ends=model.configured_eos_ids,
        vocabulary=model.vocabulary_size,
        loaded=loaded,
        asked=asked,
        questions=questions,
    )


def _shared(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many leading ids are the same."""
    return next(
        (at for at, (one, other) in enumerate(zip(ids, others, strict=False)) if one != other),
        min(len(ids), len(others)),
    )
