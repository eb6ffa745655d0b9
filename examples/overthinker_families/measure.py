"""Measure a testbed of the families: `python -m examples.overthinker_families.measure runs/families`.

Samples both views of its base model, or of another one, at temperature 1 and prints one JSON object: the bottleneck
that was reached beside the one that was asked for, and what the paths are by the ground truth; the same of paths from
the corpus, which is what there was to learn.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean

import numpy as np
import torch

from examples.inputs import count, require_readable, rows_of
from examples.overthinker.chat import END, END_OF_THINKING, View
from examples.overthinker.language import ANSWER_TOKENS
from examples.overthinker.measure import NEAR_SHORTEST, load, share
from examples.overthinker.sampler import sample
from examples.overthinker_families.base import MADE
from examples.overthinker_families.corpus import WORDS, problem_of, prompt_of
from examples.overthinker_families.paths import Path as Written
from examples.overthinker_families.paths import posterior_path, prior_path
from examples.overthinker_families.problems import FAMILIES, Problem
from examples.overthinker_families.truth import Label, judge
from vpgea.grading.base import GradeRequest, Status
from vpgea.grading.exact import grade_exact
from vpgea.metrics.estimates import Estimate, share_of
from vpgea.storage.files import read_json
from vpgea.storage.records import read_entry
from vpgea_cli.main import told

CAP = 224  # tokens of a completion
DRAWS = 2000  # of the bootstrap


@dataclass(frozen=True)
class Sample:
    """One completion, judged. tokens: |z| + |y|."""

    problem: Problem
    tokens: int
    correct: bool
    label: Label

    @property
    def is_short(self) -> bool:
        """Within 1.3 times the shortest sound completion."""
        return self.tokens <= NEAR_SHORTEST * self.problem.shortest_tokens


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description="Measure a base model of the question families.")
    parser.add_argument("folder", type=Path, help="folder that examples.overthinker_families.base wrote")
    parser.add_argument("--model", type=Path, help="another Hugging Face folder, e.g. what a loop exported")
    parser.add_argument("--limit", type=count, help="use only the first so many of the dev questions")
    parser.add_argument("--samples", "-n", type=count, default=4, help="samples per question and view")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples")
    options = parser.parse_args(arguments)
    if not (options.folder / MADE).is_file():
        parser.error(
            f"{options.folder} is no testbed: it has no {MADE}; make one with examples.overthinker_families.base"
        )
    made = read_json(options.folder / MADE)
    asked_for = read_entry(options.folder / MADE, "bottleneck", float)
    file = options.folder / "questions" / "dev.jsonl"
    rows = rows_of(file, "question", "answer")
    require_readable(file, ((row["question"], row.get("options", ())) for row in rows), Problem.read)
    problems = [problem_of(row) for row in rows[: options.limit]]
    model = options.model or options.folder / "base"
    repeated = [problem for problem in problems for _ in range(options.samples)]
    found = {
        "made": made,
        "questions": len(problems),
        "samples_per_view": options.samples,
        "shortest_tokens": round(fmean(problem.shortest_tokens for problem in problems), 2),
        "corpus": summary(*corpus_samples(repeated, asked_for, options.seed), options.samples),
        "model": summary(*model_samples(model, repeated, options.seed), options.samples),
    }
    print(json.dumps(found, indent=2))


def summary(prior: Sequence[Sample], posterior: Sequence[Sample], samples: int) -> dict[str, object]:
    """Figures of both views, of all questions and by family; `samples` of a question stand one behind the other."""
    return {
        "bottleneck": bottleneck(prior, samples).as_dict(),
        "prior": figures(prior),
        "posterior": figures(posterior),
        "families": {
            family: {
                name: figures(chosen)
                for name, paths in (("prior", prior), ("posterior", posterior))
                if (chosen := [path for path in paths if path.problem.family == family])
            }
            for family in FAMILIES
        },
    }


def corpus_samples(problems: Sequence[Problem], bottleneck: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """A path of the corpus for each question without the note, and one with it."""
    rng = Random(seed)
    prior = [_written(problem, prior_path(problem, bottleneck, rng)) for problem in problems]
    return prior, [_written(problem, posterior_path(problem, rng)) for problem in problems]


def _written(problem: Problem, path: Written) -> Sample:
    tokens = len(path.thinking.split()) + ANSWER_TOKENS
    return Sample(problem, tokens, path.answer == problem.answer, path.label)


def model_samples(model: Path, problems: Sequence[Problem], seed: int) -> tuple[list[Sample], list[Sample]]:
    """A completion of the model for each question without the note, and one with it."""
    tokenizer, loaded = load(model, WORDS)

    def drawn(view: View, seed: int) -> list[Sample]:
        prompts = [prompt_of(tokenizer, view, problem) for problem in problems]
        found = sample(loaded, prompts, max_new_tokens=CAP, generator=torch.Generator().manual_seed(seed))
        return [read(problem, tokenizer.decode(ids), len(ids)) for problem, ids in zip(problems, found, strict=True)]

    return drawn("prior", seed), drawn("posterior", seed + 1)


def read(problem: Problem, text: str, tokens: int) -> Sample:
    """Take a completion apart; without an end of thinking it is wrong."""
    thinking, _, response = text.partition(END_OF_THINKING)
    grade = grade_exact(GradeRequest(response.removesuffix(END), problem.answer, problem.text))
    return Sample(problem, tokens, grade.status == Status.CORRECT, judge(problem, thinking))


def bottleneck(prior: Sequence[Sample], samples: int) -> Estimate:
    """Share of prior samples that are right and short, with a 95 % interval over questions."""
    near = np.array([path.correct and path.is_short for path in prior], np.float64).reshape(-1, samples)
    return share_of(near.sum(1), np.full(len(near), float(samples)), draws=DRAWS, seed=0)


def figures(paths: Sequence[Sample]) -> dict[str, object]:
    """Accuracy, tokens, and the shares of labels among all paths and among those whose answer is right."""
    correct = [path for path in paths if path.correct]
    return {
        "accuracy": share([path.correct for path in paths]),
        "tokens": round(fmean(path.tokens for path in paths), 2),
        "short": share([path.is_short for path in paths]),
        "correct_and_short": share([path.correct and path.is_short for path in paths]),
        "labels": _shares(paths),
        "labels_of_correct": _shares(correct),
    }


def _shares(paths: Sequence[Sample]) -> dict[str, float]:
    counts = Counter(path.label for path in paths)
    return {label: round(counts[label] / max(len(paths), 1), 4) for label in Label}


if __name__ == "__main__":
    sys.exit(told(main))
