"""The questions of a benchmark as a protocol asks them: one user turn each, and what must hold of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from string import ascii_uppercase

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vpgea.errors import UsageError
from vpgea.protocols.protocol import Protocol, Shots
from vpgea.questions.load import LoadedQuestions, Question

_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_RANGE = re.compile(r"(?<![A-Za-z])A(?:,? ?[B-Z]){1,25}(?![A-Za-z])")  # ABCD; A,B,C,D; A, B, C, D


@dataclass(frozen=True, kw_only=True)
class Example:
    """A solved row. solution: how its own data set works it out, to its answer."""

    question: str
    options: tuple[str, ...]
    solution: str
    category: str


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Where rows came from.

    Attributes:
        source: A path, or name and split on the hub.
        revision: Commit of the hub's data set; "" for files.
        sha256: Of the rows as they are used, in their order.
        count: Of them.
    """

    source: str
    revision: str
    sha256: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A benchmark as one protocol asks it.

    Attributes:
        turns: Question id → the user turn.
        examples: Where those before the question are from; None where there are none.
    """

    protocol: Protocol
    turns: Mapping[str, str] = field(repr=False)
    rows: Rows
    examples: Rows | None

    @property
    def identity(self) -> dict[str, object]:
        """What the manifest says of it, by dotted names."""
        one = self.protocol
        return {
            "protocol.benchmark": one.benchmark,
            "protocol.name": one.name,
            "protocol.version": one.version,
            "protocol.order": one.order,
            "protocol.revision": self.rows.revision,
            "protocol.rows": self.rows.sha256,
            **({} if one.guess is None else {"protocol.guess": one.guess}),
        }

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over the protocol and every user turn."""
        digest = hashlib.sha256(self.protocol.fingerprint.encode())
        for identifier, turn in self.turns.items():
            digest.update(json.dumps([identifier, turn]).encode())
        return digest.hexdigest()[:16]


def ask(
    protocol: Protocol,
    loaded: LoadedQuestions,
    *,
    source: str,
    examples: Sequence[Example] = (),
    examples_rows: Rows | None = None,
) -> Asked:
    """Render every question.

    Args:
        protocol: How.
        loaded: The questions, in the benchmark's order.
        source: What they were read from, in words.
        examples: Rows to choose the protocol's examples from.
        examples_rows: Where those are from.

    Raises:
        UsageError: The prompt cannot be rendered, there are too few examples, or its letters are not those of the
            choices.
    """
    draws = Random(1234)  # noqa: S311  # the published order, no secret
    turns = {}
    for question in loaded.questions:
        category = loaded.categories.get(question.id, "")
        chosen = [] if protocol.shots is None else _chosen(protocol.shots, examples, category, draws)
        turns[question.id] = _turn(protocol, question, category, chosen)
        if question.options:
            _require_letters(protocol, question)
    rows = Rows(
        source=source,
        revision=loaded.revision,
        sha256=rows_sha256(loaded.questions),
        count=len(loaded.questions),
    )
    return Asked(protocol=protocol, turns=turns, rows=rows, examples=examples_rows)


def rows_sha256(questions: Sequence[Question]) -> str:
    """Of ids, texts, choices in their order, and answers."""
    digest = hashlib.sha256()
    for one in questions:
        digest.update(json.dumps([one.id, one.text, list(one.options), one.answer]).encode() + b"\n")
    return digest.hexdigest()


def examples_sha256(examples: Sequence[Example]) -> str:
    """Of the rows that examples are chosen from."""
    digest = hashlib.sha256()
    for one in examples:
        digest.update(json.dumps([one.question, list(one.options), one.solution, one.category]).encode() + b"\n")
    return digest.hexdigest()


def _chosen(shots: Shots, examples: Sequence[Example], category: str, draws: Random) -> list[Example]:
    pool = [one for one in examples if not shots.same_category or one.category == category]
    if len(pool) < shots.count:
        of_it = f" of the category {category!r}" if shots.same_category else ""
        raise UsageError(
            f"the protocol shows {shots.count} examples, and there are {len(pool)}{of_it}",
            why=f"they are rows of the split {shots.split}",
            mend=f"give the whole split: a file {shots.split}.jsonl beside the questions, or the hub's",
        )
    return pool[: shots.count] if shots.order == "first" else draws.sample(pool, shots.count)


def _turn(protocol: Protocol, question: Question, category: str, examples: Sequence[Example]) -> str:
    """The answer is not among the variables: a prompt that shows it, or follows from it, cannot be written."""
    letters = ascii_uppercase[: len(question.options)]
    try:
        text = _JINJA.from_string(protocol.prompt).render(
            question=question.text,
            choices=_choices(protocol, question.options),
            letters=letters,
            category=category,
            examples=[
                {"question": one.question, "choices": _choices(protocol, one.options), "solution": one.solution}
                for one in examples
            ],
        )
    except TemplateError as error:
        raise UsageError(
            f"the prompt of protocol {protocol.name} cannot be rendered for question {question.id}",
            why=" ".join(str(error).split()),
            mend="its variables are question, choices, letters, category and examples (question, choices, solution)",
        ) from error
    return text


def _choices(protocol: Protocol, options: Sequence[str]) -> str:
    if protocol.choice is None:
        return ""
    one = _JINJA.from_string(protocol.choice)
    return "\n".join(
        one.render(letter=letter, text=text) for letter, text in zip(ascii_uppercase, options, strict=False)
    )


def _require_letters(protocol: Protocol, question: Question) -> None:
    """The letters that the instruction names are those of the choices: `ABCD` before ten of them hides six."""
    letters = ascii_uppercase[: len(question.options)]
    bare = _turn(protocol, Question(question.id, "", "", ("",) * len(letters)), "", [])
    named = [re.sub(r"[, ]", "", found) for found in _RANGE.findall(bare)]
    if wrong := next((one for one in named if one != letters and one == ascii_uppercase[: len(one)]), None):
        raise UsageError(
            f"protocol {protocol.name} names the letters {wrong}, and question {question.id} has {letters}",
            why=f"it has {len(letters)} choices: a model that obeys could not give each of them",
            mend="write {{ letters }} in the prompt",
        )
