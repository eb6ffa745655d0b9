"""Rollout and validation dumps of verl: STEP.jsonl, a line per response with its score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from vpgea.errors import UsageError
from vpgea.foreign.lines import first_object, read_lines
from vpgea.foreign.sample import ForeignLog, ForeignSample, Found, UnusableError, mapping, optional_text, single

_KNOWN = ("input", "output", "gts", "score", "step")


def is_row(row: Mapping[str, object]) -> bool:
    """Whether an object is a line of such a dump."""
    return {"input", "output", "score"} <= row.keys() and bool({"step", "gts"} & row.keys())


def read_log(files: Sequence[Path]) -> ForeignLog:
    """The dump of one step.

    Raises:
        UsageError: There are several: each is of other weights.
    """
    if len(files) > 1:
        raise UsageError(
            f"{files[0].parent} holds dumps of {len(files)} steps",
            why=f"each is of other weights: {', '.join(path.name for path in files[:4])}",
            mend="give the file of one step",
        )
    row = first_object(files[0]) or {}
    scores = _scores(row)
    return ForeignLog(
        tool="verl",
        version=None,
        model=None if row.get("step") is None else f"step {row['step']}",
        protocol={},
        files=(files[0],),
        metrics=tuple(scores),
        main_metric="acc" if "acc" in scores else "score",
        samples=partial(_samples, files[0]),
        remarks=("a dump says neither the model's name nor how it was sampled: its protocol is unknown",),
    )


def _scores(row: Mapping[str, object]) -> dict[str, object]:
    """The score, and what the reward function said beside it in numbers."""
    more = {name: value for name, value in row.items() if name not in _KNOWN and isinstance(value, int | float)}
    return {"score": row.get("score"), **more}


def _samples(path: Path, metric: str | None) -> Iterator[Found]:
    yield from read_lines(path, _sample)


def _sample(row: Mapping[str, object]) -> Iterator[ForeignSample]:
    output = row.get("output")
    if not is_row(row) or not isinstance(output, str):
        raise UnusableError("it has not the fields of a dump: input, output, score, gts or step")
    truth = row.get("gts")
    yield ForeignSample(
        question_id=None,
        completion=output,
        question=optional_text(row.get("input")),
        reference=single(mapping(truth).get("ground_truth", truth)),
        scores=_scores(row),
        extracted=optional_text(row.get("pred")),
    )
