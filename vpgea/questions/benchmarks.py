"""Named evaluation sets: where they come from, and how a user's copy is to be read.

The project ships none of them. A set is read from a file or folder of the user's, or from the Hugging Face hub.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vpgea.config.schema import DataConfig, FieldMapping
from vpgea.errors import UsageError, did_you_mean
from vpgea.questions.folders import split_names
from vpgea.questions.load import CATEGORY, LoadedQuestions, to_questions, wanted_columns
from vpgea.questions.rows import RawRow, RawRows
from vpgea.questions.sources import read_source

GPQA_REPEATS = 4  # as in simple-evals: every row four times, its choices in another order each time
GPQA_CHOICES = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_GPQA_COLUMNS = ("Record ID", "Question", *GPQA_CHOICES)


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """One evaluation set.

    Attributes:
        hub_id: Where the hub has it.
        subset: There.
        split: There.
        fields: Column names of the hub's copy; a copy may use `id`, `question`, `answer`, `options` instead.
        grader: What grades it.
        notes: What a reader of the results should know.
        columns: Further columns that `prepare` needs.
        prepare: Raw rows, and which column is which → raw rows, before they are checked.
        rows: Of its published copy.
        places: Where a folder of several sets may have its file, without what the file's name ends in.
    """

    name: str
    hub_id: str
    subset: str | None
    split: str
    fields: FieldMapping
    grader: Literal["math", "choice"]
    notes: str
    columns: tuple[str, ...] = ()
    prepare: Callable[[RawRows, FieldMapping], RawRows] = lambda raw, fields: raw
    places: tuple[str, ...] = ()
    rows: int

    def asked(self, order: str) -> int:
        """Questions that there are with this order of choices: simple-evals asks every row of GPQA four times."""
        return self.rows * (GPQA_REPEATS if order == "simple-evals" else 1)


def load_evalset(
    name: str,
    path: str | None = None,
    *,
    fields: FieldMapping | None = None,
    split: str | None = None,
    subset: str | None = None,
    limit: int | None = None,
    skip_bad_rows: bool = False,
    offline: bool = False,
    order: str | None = None,
) -> LoadedQuestions:
    """Load a named set from `path` (any format of `load_questions`), or from the hub.

    gsm8k: the answer is what follows `####`, where the column holds the whole solution; its commas stay.
    aime24, aime25: leading zeros of the answer go.
    aime24: a row's `question_alt` takes the place of `question` where it says something else; the commonly copied
    text of 2024-II-8 is corrupt. Where it only adds a drawing to the same words, `question` stays, as in other copies.
    gpqa-diamond: 198 rows become 792 questions, id `RECORD/REPEAT`: choices permuted as simple-evals does it.

    Args:
        name: One of EVALSETS.
        path: A copy; None for the hub's.
        fields: Names of a copy's columns, where they are neither the usual ones nor the hub's.
        split: In place of the set's own.
        subset: In place of the set's own.
        limit: Use only the first so many questions.
        skip_bad_rows: Leave out, count and list rows that cannot be used.
        offline: Local caches only.
        order: One of ORDERS for the choices of gpqa-diamond; None: that of simple-evals.

    Raises:
        UsageError: The name is unknown, or for anything that `load_questions` raises it for.
    """
    evalset, given = find_evalset(name), fields or FieldMapping()
    wanted = wanted_columns(evalset.fields) | wanted_columns(given) | frozenset(evalset.columns)
    source = DataConfig(
        dataset=path or evalset.hub_id,
        subset=subset if path or subset else evalset.subset,
        split=split or _split_of(evalset, path, subset),
    )
    raw = read_source(source, wanted, offline=offline)
    mapped = given if evalset.columns == _GPQA_COLUMNS else _mapping(evalset.fields, given, raw)
    prepared = _prepare_gpqa(raw, ORDERS[order]) if order in ORDERS else evalset.prepare(raw, mapped)
    return to_questions(prepared, mapped, evalset.grader, limit=limit, skip_bad_rows=skip_bad_rows)


def _split_of(evalset: EvalSet, path: str | None, subset: str | None) -> str:
    """The hub's split; that of a folder with one split only, however it is called."""
    folder = Path(path or ".").expanduser()
    names = split_names(folder, subset) if path is not None and folder.is_dir() else []
    return names[0] if len(names) == 1 else evalset.split


def find_evalset(name: str) -> EvalSet:
    """A set by its name.

    Raises:
        UsageError: There is none; the nearest one is named.
    """
    if name in EVALSETS:
        return EVALSETS[name]
    raise UsageError(
        f"there is no evaluation set named {name!r}",
        why=f"the names are {', '.join(EVALSETS)}",
        mend=did_you_mean(name, EVALSETS, "choose one of them, or give a question file"),
    )


def _mapping(fields: FieldMapping, given: FieldMapping, raw: RawRows) -> FieldMapping:
    """Which column is which: as the user says, else the standard name where the copy has it, else the hub's.

    The id is made from the content where no column has it.
    """
    found: dict[str, str | None] = {}
    for role, standard in FieldMapping().model_dump().items():
        hub, named = getattr(fields, role), getattr(given, role)
        usual = standard if standard in raw.columns else hub
        found[role] = named if named != standard else usual
    if found["id"] == fields.id and found["id"] not in raw.columns:
        found["id"] = "id"
    return FieldMapping.model_validate(found)


def _map_rows(raw: RawRows, change: Callable[[dict[str, Any]], dict[str, Any]]) -> RawRows:
    return replace(raw, rows=[replace(row, values=change(row.values)) for row in raw.rows])


def _prepare_gsm8k(raw: RawRows, fields: FieldMapping) -> RawRows:
    def final_answer(row: dict[str, Any]) -> dict[str, Any]:
        answer = row.get(fields.answer)
        return row | {fields.answer: answer.rpartition("####")[2].strip()} if isinstance(answer, str) else row

    return _map_rows(raw, final_answer)


def _prepare_aime(raw: RawRows, fields: FieldMapping) -> RawRows:
    def mended(row: dict[str, Any]) -> dict[str, Any]:
        answer, alternative, text = row.get(fields.answer), row.get("question_alt"), row.get(fields.question)
        if isinstance(answer, str) and answer.isdecimal():
            row = row | {fields.answer: str(int(answer))}
        if alternative and isinstance(text, str) and not _only_adds(text, alternative):
            row = row | {fields.question: alternative}
        return row

    return _map_rows(raw, mended)


def _only_adds(text: str, alternative: str) -> bool:
    """Are the words of `text` all in `alternative`, in the same order?"""
    words = iter(alternative.split())
    return all(word in words for word in text.split())


def _prepare_gpqa(raw: RawRows, order: GpqaOrder) -> RawRows:
    """Repeat the rows and permute their choices.

    The permutations depend on the rows' number or texts alone: bad rows take part, and are left out afterwards.
    """
    missing = [name for name in _GPQA_COLUMNS if name not in raw.columns]
    if missing and raw.rows:
        raise UsageError(
            f"{raw.file}: the column {missing[0]!r} is missing",
            why=f"the columns are {', '.join(raw.columns)}",
            mend="use gpqa_diamond.csv as it was published",
        )
    rows = [replace(row, values=values) for row, values in order(raw.rows)]
    return replace(raw, columns=dict.fromkeys(("id", "question", "answer", "options")), rows=rows)


def _simple_evals(rows: Sequence[RawRow]) -> Iterator[tuple[RawRow, dict[str, Any]]]:
    """All rows four times; Random(0).sample for each, in that order (gpqa_eval.py)."""
    rng = random.Random(0)  # noqa: S311  # the published order, no secret
    for repeat in range(GPQA_REPEATS):
        for row in rows:
            order = rng.sample(range(len(GPQA_CHOICES)), len(GPQA_CHOICES))
            yield row, _gpqa_row(row.values, order, repeat)


def _inspect(rows: Sequence[RawRow]) -> Iterator[tuple[RawRow, dict[str, Any]]]:
    """Random(42).shuffle of each row's places, one generator for all rows in their order."""
    rng = random.Random(42)  # noqa: S311  # the published order, no secret
    for row in rows:
        order = list(range(len(GPQA_CHOICES)))
        rng.shuffle(order)
        yield row, _gpqa_row(row.values, order, None)


def _evalscope(rows: Sequence[RawRow]) -> Iterator[tuple[RawRow, dict[str, Any]]]:
    """The right choice last, then a shuffle whose seed is the SHA-256 of the question; choices stripped."""
    for row in rows:
        question = str(row.values["Question"] or "").strip()
        seed = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big")
        order = [1, 2, 3, 0]
        random.Random(seed).shuffle(order)  # noqa: S311  # the published order, no secret
        values = _gpqa_row(row.values, order, None)
        yield row, values | {"options": [_stripped(one) for one in values["options"]]}


def _lighteval(rows: Sequence[RawRow]) -> Iterator[tuple[RawRow, dict[str, Any]]]:
    """The right choice put between the wrong ones, at Random(1234).randint(0, 3) of each row; all texts stripped."""
    rng = random.Random(1234)  # noqa: S311  # the published order, no secret
    for row in rows:
        order = [1, 2, 3]
        order.insert(rng.randint(0, 3), 0)
        values = _gpqa_row(row.values, order, None)
        texts = {"question": _stripped(values["question"]), "options": [_stripped(one) for one in values["options"]]}
        yield row, values | texts


def _stripped(text: object) -> object:
    return text.strip() if isinstance(text, str) else text


def _gpqa_row(row: dict[str, Any], order: Sequence[int], repeat: int | None) -> dict[str, Any]:
    record = row["Record ID"]
    return {
        "id": record and (record if repeat is None else f"{record}/{repeat}"),
        "question": row["Question"],
        "answer": "ABCD"[order.index(0)],
        "options": [row[GPQA_CHOICES[i]] for i in order],
    }


GpqaOrder = Callable[[Sequence[RawRow]], Iterator[tuple[RawRow, dict[str, Any]]]]
ORDERS: dict[str, GpqaOrder] = {
    "simple-evals": _simple_evals,
    "inspect": _inspect,
    "evalscope": _evalscope,
    "lighteval": _lighteval,
}
_AIME_FIELDS = FieldMapping(question="problem")

EVALSETS: dict[str, EvalSet] = {
    evalset.name: evalset
    for evalset in (
        EvalSet(
            name="gsm8k",
            rows=1319,
            places=("gsm8k/test", "gsm8k"),
            hub_id="openai/gsm8k",
            subset="main",
            split="test",
            fields=FieldMapping(),
            grader="math",
            notes="1319 questions; some answers have thousands commas.",
            prepare=_prepare_gsm8k,
        ),
        EvalSet(
            name="math500",
            rows=500,
            places=("math500/test", "math500"),
            hub_id="HuggingFaceH4/MATH-500",
            subset=None,
            split="test",
            fields=FieldMapping(id="unique_id", question="problem"),
            grader="math",
            notes="500 questions; 6 of them are also in AIME 1983-2023.",
        ),
        EvalSet(
            name="aime24",
            rows=30,
            places=("aime/aime24", "aime24/test", "aime24"),
            hub_id="HuggingFaceH4/aime_2024",
            subset=None,
            split="train",
            fields=_AIME_FIELDS,
            grader="math",
            notes="30 questions, answers 0-999; commonly copied texts of 2024-II-8 are corrupt, mended where a row has "
            "question_alt.",
            columns=("question_alt",),
            prepare=_prepare_aime,
        ),
        EvalSet(
            name="aime25",
            rows=30,
            places=("aime/aime25", "aime25/test", "aime25"),
            hub_id="math-ai/aime25",
            subset=None,
            split="test",
            fields=_AIME_FIELDS,
            grader="math",
            notes="30 questions, answers 0-999.",
            prepare=_prepare_aime,
        ),
        EvalSet(
            name="gpqa-diamond",
            rows=198,
            places=("gpqa/gpqa_diamond", "gpqa_diamond", "gpqa-diamond"),
            hub_id="Idavidrein/gpqa",
            subset="gpqa_diamond",
            split="train",
            fields=FieldMapping(),
            grader="choice",
            notes="198 rows, 4 orders of the choices each; gated on the hub: "
            "accept its terms, or give gpqa_diamond.csv.",
            columns=_GPQA_COLUMNS,
            prepare=lambda raw, fields: _prepare_gpqa(raw, _simple_evals),
        ),
        EvalSet(
            name="mmlu-pro",
            rows=12032,
            places=("mmlu_pro/test", "mmlu-pro/test", "mmlu-pro", "mmlu_pro"),
            hub_id="TIGER-Lab/MMLU-Pro",
            subset=None,
            split="test",
            fields=FieldMapping(id="question_id"),
            grader="choice",
            columns=(CATEGORY,),
            notes="12032 rows with 3-10 options; the letter of row 3983 contradicts its index, so it is a bad row: "
            "skip_bad_rows leaves 12031.",
        ),
    )
}
