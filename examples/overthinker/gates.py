"""What each kind of gate would let the student learn: the accepted paths of a loop, sound or not, weighed by each.

python -m examples.overthinker.gates runs/overthinker [--without-checks]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from examples.detection.truth import Asked, truth_of
from examples.inputs import filtered_rounds, judged_rows
from vpgea.config.filtering import AdvantageConfig
from vpgea.config.resolve import resolve_recorded
from vpgea.errors import UsageError
from vpgea.filtering.gate_factors import gate_factors
from vpgea.filtering.samples import JudgedSample, by_question
from vpgea.filtering.selection import paired_chunks, read_samples
from vpgea.filtering.utility import baseline, posterior_gates
from vpgea.grading.base import Status
from vpgea.runs.complete_phase import CompletePhase
from vpgea.storage.rows import read_rows
from vpgea.storage.schemas import IDENTITY, POSTERIOR, PRIOR, SampleKey, SampleRow

KINDS = ("one", "advantage", "plausible", "importance", "contrast")
COLUMNS = ("gate", "share of unsound paths, %", "thinking tokens", "effective share of paths")
DRAWS, SEED = 2000, 0
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Accepted:
    """The accepted paths of a folder, one entry each; gates by their kinds."""

    question: npt.NDArray[np.int64]
    unsound: FloatArray
    tokens: FloatArray
    gates: Mapping[str, FloatArray]


def read_accepted(folder: Path, *, without_checks: bool = False) -> Accepted:
    """Of all rounds in a loop's folder. Raises UsageError where there is none, or it is of no testbed.

    without_checks: accepted is every path whose own answer is right.
    """
    question, unsound, tokens, gates = list[str](), list[bool](), list[int](), {kind: list[float]() for kind in KINDS}
    for place in filtered_rounds(folder):
        rollout = CompletePhase.open(place / "rollout", "rollout")
        measured = CompletePhase.open(place / "filter", "filter")
        config = resolve_recorded(f"filter folder {measured.root}", measured.manifest.config)
        pairs = paired_chunks(rollout, measured)
        stored = {SampleKey(*(row[name] for name in IDENTITY)): row for row in judged_rows(place)}
        rows = {row.key: row for path, _ in pairs for row in read_rows(path, SampleRow)}
        asked = {key: Asked(key.question_id, row.question, row.answer, tuple(row.options)) for key, row in rows.items()}
        truth = truth_of(rollout.root, list(asked.values()), None)
        samples = read_samples(config, pairs)
        for sample in samples:
            found = stored[sample.key]
            sample.utility = float("nan") if found["utility"] is None else found["utility"]
            sample.reasons = list(found["reasons"])
            if (
                without_checks
                and sample.status == Status.CORRECT
                and not sample.cut_off
                and found["utility"] is not None
            ):
                sample.reasons = []
        for name, group in by_question(samples).items():
            paths = [sample for sample in group if sample.view == POSTERIOR]
            found_gates = _gates_of_kinds(config.filter.advantage, group, paths)
            for number, path in enumerate(paths):
                if not path.reasons:
                    question.append(name)
                    unsound.append(not truth.kind(asked[path.key], rows[path.key].completion).is_sound)
                    tokens.append(path.thinking_tokens)
                    for kind in KINDS:
                        gates[kind].append(float(found_gates[kind][number]))
    _, index = np.unique(question, return_inverse=True)
    return Accepted(
        index,
        np.asarray(unsound, np.float64),
        np.asarray(tokens, np.float64),
        {kind: np.asarray(values, np.float64) for kind, values in gates.items()},
    )


def _gates_of_kinds(
    config: AdvantageConfig, group: Sequence[JudgedSample], paths: Sequence[JudgedSample]
) -> dict[str, FloatArray]:
    """Each kind's gates of a question's posterior paths. The mean gate weighs all alike, as `one` does."""
    prior = [sample.utility for sample in group if sample.view == PRIOR and sample.status.valid]
    utilities, accepted = [path.utility for path in paths], [not path.reasons for path in paths]
    found = {}
    for kind in KINDS:
        options = config.model_copy(update={"gate": kind})
        factors = gate_factors(options, paths)
        found[kind] = posterior_gates(utilities, accepted, baseline(prior, options), options, factors)
    return found


def table(found: Accepted) -> list[tuple[str, str, str, str]]:
    """A row for each kind of gate; intervals of 95 % by a bootstrap over questions."""
    rows = []
    for kind, gates in found.gates.items():
        weights, *weighed = (
            np.asarray(np.bincount(found.question, gates * of), np.float64)
            for of in (np.ones(gates.size), 100 * found.unsound, found.tokens)
        )
        unsound, tokens = (_with_interval(sums, weights) for sums in weighed)
        share = gates.sum() ** 2 / (gates.size * (gates**2).sum()) if gates.any() else 0.0
        rows.append((kind, unsound, tokens, f"{share:.2f}"))
    return rows


def _with_interval(sums: FloatArray, weights: FloatArray) -> str:
    """Sum over questions through the sum of their weights, both (questions,)."""
    if not weights.any():
        return "-"
    draws = np.random.default_rng(SEED).multinomial(sums.size, [1 / sums.size] * sums.size, DRAWS)
    drawn = draws @ weights
    low, high = np.quantile((draws @ sums)[drawn > 0] / drawn[drawn > 0], [0.025, 0.975])
    return f"{sums.sum() / weights.sum():.2f} [{low:.2f}, {high:.2f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a loop on the testbed or its families, or of one round")
    parser.add_argument("--without-checks", action="store_true", help="as if every path with a right answer passed")
    options = parser.parse_args(arguments)
    try:
        found = read_accepted(options.run, without_checks=options.without_checks)
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    rows = [COLUMNS, ("---",) * len(COLUMNS), *table(found)]
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
