"""What a log of another tool says: of itself, and of each sample. What it does not say is None, never a default."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vpgea.errors import UsageError, did_you_mean

THINKING_OPENS, THINKING_ENDS = "<think>", "</think>"


class UnusableError(ValueError):
    """Why a row is no sample, in words."""


@dataclass(frozen=True, kw_only=True)
class ForeignSample:
    """One response, with what was recorded of it.

    Attributes:
        question_id: As recorded; None where the log has no ids.
        index: Which sample of its question, where the log counts them.
        reference: The one answer that is right; None where there is none, or several.
        completion: The thinking too; one that was recorded apart stands in front, between its tags.
        tokens: Of the completion, thinking included, as the tool counted them.
        thinking_tokens: Those of them that are thinking.
        scores: Name of a metric → what was recorded under it.
        extracted: The answer that the tool's own grader found.
    """

    question_id: str | None
    completion: str
    index: int | None = None
    question: str | None = None
    reference: str | None = None
    options: tuple[str, ...] = ()
    tokens: int | None = None
    thinking_tokens: int | None = None
    finish_reason: Literal["stop", "length"] | None = None
    scores: Mapping[str, object] = field(default_factory=dict)
    extracted: str | None = None

    @property
    def contradicts_itself(self) -> bool:
        """Whether more tokens of thinking were recorded than tokens: then nobody knows the thinking's."""
        return self.tokens is not None and self.thinking_tokens is not None and self.thinking_tokens > self.tokens


@dataclass(frozen=True)
class Unreadable:
    """A row that is no sample."""

    place: str
    reason: str


Found = tuple[str, ForeignSample] | Unreadable  # the place of a sample in its file, and the sample


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How responses were drawn, as far as it is stated. cap: of a completion's tokens."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    cap: int | None = None

    @classmethod
    def stated_in(cls, *settings: Mapping[str, object]) -> Sampling:
        """From settings under any tool's names for them, later ones above earlier ones."""
        stated = {name: value for one in settings for name, value in one.items() if value is not None}
        caps = (count_of(stated.get(name)) for name in ("max_gen_toks", "max_new_tokens", "max_tokens"))
        return cls(
            temperature=_number(stated.get("temperature")),
            top_p=_number(stated.get("top_p")),
            top_k=count_of(stated.get("top_k")),
            cap=next((cap for cap in caps if cap is not None), None),
        )


@dataclass(frozen=True, kw_only=True)
class ForeignLog:
    """One evaluation that another tool has written.

    Attributes:
        tool: Its name here.
        version: Of the tool; None where the log does not say it.
        model: As the tool calls it.
        protocol: What the log states of prompts, sampling and scoring, under the tool's own names.
        files: All that was read.
        metrics: Names of the recorded scores, of which one is the verdict.
        main_metric: The one that the log itself calls the main one.
        samples: All rows in their order, anew at each call; the metric's name decides which where rows repeat.
        sampling: What the protocol says of it, in our words.
        remarks: What people should be told.
    """

    tool: str
    version: str | None
    model: str | None
    protocol: Mapping[str, object]
    files: tuple[Path, ...]
    metrics: tuple[str, ...]
    samples: Callable[[str | None], Iterator[Found]]
    sampling: Sampling = Sampling()
    main_metric: str | None = None
    remarks: tuple[str, ...] = ()

    def verdict_metric(self, wanted: str | None, *, is_needed: bool) -> str | None:
        """The score that is the verdict; None where no score is recorded, or several and none is needed.

        Raises:
            UsageError: There is none of that name, or several and none was named.
        """
        if wanted is not None and wanted not in self.metrics:
            raise UsageError(
                f"no score is called {wanted!r}",
                why=f"the scores recorded here are {', '.join(self.metrics) or 'none'}",
                mend=did_you_mean(wanted, self.metrics, "give one of them with --metric")
                if self.metrics
                else "leave out --metric, or grade with --regrade",
            )
        chosen = wanted or self.main_metric or (self.metrics[0] if len(self.metrics) == 1 else None)
        if chosen is None and self.metrics and is_needed:
            raise UsageError(
                f"several scores are recorded, and which of them is the verdict is not: {', '.join(self.metrics)}",
                why="a sample has one grade",
                mend=f"name it, e.g. --metric {self.metrics[0]!r}; or grade with --regrade",
            )
        return chosen


def with_thinking(thinking: str | None, answer: str, *, is_unended: bool) -> str:
    """A thinking that was recorded apart in front of the answer, as models write it."""
    if not thinking:
        return answer
    if not answer and is_unended:
        return f"{THINKING_OPENS}\n{thinking}"
    return f"{THINKING_OPENS}\n{thinking}\n{THINKING_ENDS}\n\n{answer}"


def text_of(value: object, what: str) -> str:
    """A text, or a number as one.

    Raises:
        UnusableError: It is anything else.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise UnusableError(f"{what} is {'absent' if value is None else type(value).__name__}")


def optional_text(value: object) -> str | None:
    """A text or number as text; None for everything else, an empty text included."""
    try:
        return text_of(value, "") or None
    except UnusableError:
        return None


def count_of(value: object) -> int | None:
    """A number of tokens; None where there is none. Tools write 0 or -1 for what they did not count."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def single(value: object) -> str | None:
    """The one text of a value or of a list of one; None where there are several."""
    if isinstance(value, list):
        return optional_text(value[0]) if len(value) == 1 else None
    return optional_text(value)


def mapping(value: object) -> Mapping[str, object]:
    """The object that should stand there; an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}


_ENDED: dict[str, Literal["stop", "length"]] = {
    **dict.fromkeys(("stop", "eos", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "model_length"), "length"),
}


def finish_of(value: object) -> Literal["stop", "length"] | None:
    """How a response ended, in our two words; None for ends that say something else, or nothing."""
    return _ENDED.get(value.lower()) if isinstance(value, str) else None


def last_user_text(messages: object) -> str | None:
    """What the user said last in a chat."""
    if not isinstance(messages, list):
        return None
    said = [mapping(turn).get("content") for turn in messages if mapping(turn).get("role") == "user"]
    return plain_text(said[-1]) if said else None


def plain_text(content: object) -> str | None:
    """The text of a message's content, which may be a list of typed pieces."""
    if isinstance(content, list):
        texts = [mapping(piece).get("text") for piece in content if mapping(piece).get("type") in ("text", None)]
        return "".join(text for text in texts if isinstance(text, str)) or None
    return optional_text(content)


def response_of(message: Mapping[str, object], *, is_unended: bool) -> str:
    """An assistant's message as one text, its thinking in front.

    Raises:
        UnusableError: There is no text in it.
    """
    content = message.get("content")
    pieces = content if isinstance(content, list) else []
    kept = [mapping(piece).get("reasoning") for piece in pieces if mapping(piece).get("type") == "reasoning"]
    thinking = "\n".join(text for text in kept if isinstance(text, str))
    thinking = thinking or next(
        (text for name in ("reasoning_content", "reasoning") if isinstance(text := message.get(name), str)), ""
    )
    answer = plain_text(content) or ""
    if content is None and not thinking:
        raise UnusableError("the response is absent")
    return with_thinking(thinking, answer, is_unended=is_unended)
