"""Measure a model folder on the testbed: `python -m examples.overthinker.measure examples/overthinker/base-global`.

Samples both views at temperature 1 and prints one JSON object. Soundness is ground truth, which no real task has.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Literal, get_args

import torch

from examples.inputs import count, own_tokenizer, require_readable, rows_of
from examples.overthinker.batches import wrong_value
from examples.overthinker.chat import END_OF_THINKING, View, prompt_ids
from examples.overthinker.language import WORDS, Question, shortest_sound_tokens
from examples.overthinker.sampler import sample
from examples.overthinker_families.truth import is_sound
from vpgea_cli.main import told

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Note = Literal["right", "wrong", "none"]  # the value that the posterior's note names

QUESTIONS = Path(__file__).with_name("questions")
NEAR_SHORTEST = 1.3
_BOX = re.compile(r"\\boxed\{ (\d+) \}")


@dataclass(frozen=True)
class Sample:
    """One completion. tokens: |z| + |y|. near_shortest: within 1.3 times the shortest sound completion."""

    question: str
    thinking: str
    tokens: int
    correct: bool
    sound: bool
    near_shortest: bool
    leaks: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description="Measure a model folder on the over-thinking testbed.")
    parser.add_argument("model", type=Path, help="Hugging Face folder")
    parser.add_argument("--questions", type=Path, default=QUESTIONS / "dev.jsonl", help="question file")
    parser.add_argument("--limit", type=count, help="use only the first so many questions")
    parser.add_argument("--samples", "-n", type=count, default=4, help="samples per question and view")
    parser.add_argument("--max-new-tokens", type=count, default=192, help="cap on a completion's tokens")
    parser.add_argument("--note", choices=get_args(Note), default="right", help="what the posterior's note names")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples")
    options = parser.parse_args(arguments)
    rows = rows_of(options.questions, "question", "answer")
    require_readable(options.questions, ((row["question"],) for row in rows), Question.parse)
    rows = rows[: options.limit]
    figures = measure(options.model, rows, options.samples, options.max_new_tokens, options.seed, note=options.note)
    print(json.dumps(figures, indent=2))


def measure(
    folder: Path, rows: Sequence[dict[str, str]], samples: int, cap: int, seed: int, *, note: Note = "right"
) -> dict[str, float]:
    """Draw from both views and summarise; rows have `question` and `answer`."""
    began = time.monotonic()
    prior = draw(folder, "prior", rows, samples, cap, seed)
    posterior = draw(folder, "posterior", rows, samples, cap, seed + 1, note=note)
    correct = [path for path in posterior if path.correct]
    return {
        "questions": len(rows),
        "samples_per_view": samples,
        "prior_accuracy": share([path.correct for path in prior]),
        "prior_tokens": round(fmean(path.tokens for path in prior), 2),
        "prior_sound_share": share([path.sound for path in prior]),
        "prior_correct_near_shortest": share([path.correct and path.near_shortest for path in prior]),
        "shortest_tokens": round(fmean(shortest_sound_tokens(row["question"]) for row in rows), 2),
        "posterior_accuracy": share([path.correct for path in posterior]),
        "posterior_tokens": round(fmean(path.tokens for path in posterior), 2),
        "posterior_sound_share_of_correct": share([path.sound for path in correct]),
        "posterior_leak_share": share([path.leaks for path in posterior]),
        "seconds": round(time.monotonic() - began, 1),
    }


def draw(
    folder: Path,
    view: View,
    rows: Sequence[dict[str, str]],
    samples: int,
    cap: int,
    seed: int,
    *,
    note: Note = "right",
) -> list[Sample]:
    """`samples` completions per question in one view, question by question."""
    tokenizer, model = load(folder, WORDS)
    repeated = [row for row in rows for _ in range(samples)]
    rng = Random(seed)
    named: dict[Note, Callable[[str], int | None]] = {
        "right": int,
        "wrong": lambda answer: wrong_value(int(answer), rng),
        "none": lambda answer: None,
    }
    prompts = [prompt_ids(tokenizer, view, row["question"], named[note](row["answer"])) for row in repeated]
    completions = sample(model, prompts, max_new_tokens=cap, generator=torch.Generator().manual_seed(seed))
    return [read(row, tokenizer.decode(ids), len(ids)) for row, ids in zip(repeated, completions, strict=True)]


def load(folder: Path, words: Collection[str]) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    """Tokenizer and model of a Hugging Face folder, which knows the words of a testbed.

    Raises:
        UsageError: It is none, or another example's.
    """
    from transformers import AutoModelForCausalLM

    return own_tokenizer(folder, words), AutoModelForCausalLM.from_pretrained(folder).eval()


def read(row: dict[str, str], text: str, tokens: int) -> Sample:
    """Take a completion apart; without an end of thinking it is wrong."""
    thinking, _, response = text.partition(END_OF_THINKING)
    box = _BOX.search(response)
    return Sample(
        question=row["question"],
        thinking=thinking.strip(),
        tokens=tokens,
        correct=box is not None and box[1] == row["answer"],
        sound=is_sound(row["question"], thinking),
        near_shortest=tokens <= NEAR_SHORTEST * shortest_sound_tokens(row["question"]),
        leaks=re.search(r"\bnote\b", thinking) is not None,
    )


def share(flags: Sequence[bool]) -> float:
    """Share of true flags; 0 of none is 0."""
    return round(sum(flags) / max(len(flags), 1), 4)


if __name__ == "__main__":
    sys.exit(told(main))
