"""What a base model is trained on: bare facts first, then traces from both views."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import torch

from examples.overthinker.chat import View, completion, prompt_ids
from examples.overthinker.language import CHECK_MARKS, LARGEST, OPERANDS, Dial, Question, Step, sample_question
from examples.overthinker.traces import HABITS, doubting_trace, posterior_trace, prior_trace, statement

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

QUESTIONS = Path(__file__).with_name("questions")
IGNORED = -100
WITHOUT_CHECK = 10_000  # added to a target: its loss is conditional on no re-check
CHECK_WORDS = [marks[0] for marks in CHECK_MARKS]
FREE_CHECKS = (0.4, 0.25, 0.15, 0.1, 0.1)
FACTS_PER_ROW = 6

Batch = tuple[torch.Tensor, torch.Tensor]  # ids and targets, int64 (rows, T); targets are IGNORED on prompt and padding


def facts(tokenizer: PreTrainedTokenizerFast, rows: int, rng: Random) -> Batch:
    """Right statements about random numbers, several to a row: the arithmetic, without any habit."""
    paths = [tokenizer.encode(" ".join(_fact(rng) for _ in range(FACTS_PER_ROW))) for _ in range(rows)]
    return pad([([], path) for path in paths], int(tokenizer.pad_token_id))


def traces(
    tokenizer: PreTrainedTokenizerFast, view: View, dial: Dial, rows: int, held_out: set[str], rng: Random
) -> Batch:
    """Fresh questions with a completion as the base model writes it in one view; held-out questions never occur."""
    pairs: list[tuple[list[int], list[int]]] = []
    while len(pairs) < rows:
        question = _fresh_question(held_out, rng)
        if view == "prior":
            thinking, answer = prior_trace(question, HABITS[dial], rng)
        else:
            thinking, answer = posterior_trace(question, rng)
        prompt = prompt_ids(tokenizer, view, question.text, question.answer)
        pairs.append((prompt, tokenizer.encode(completion(thinking, answer))))
    return pad(pairs, int(tokenizer.pad_token_id))


def doubting_traces(
    tokenizer: PreTrainedTokenizerFast, dial: Dial, rows: int, held_out: set[str], rng: Random
) -> Batch:
    """Posterior-view traces behind notes that are no help: a third names no answer, the others a wrong one.

    Without an answer the base thinks as without a note. A wrong one is off by 1 to 9, or any other value.
    """
    pairs: list[tuple[list[int], list[int]]] = []
    while len(pairs) < rows:
        question = _fresh_question(held_out, rng)
        given = None if rng.random() < 1 / 3 else wrong_value(question.answer, rng)
        if given is None:
            thinking, answer = prior_trace(question, HABITS[dial], rng)
        else:
            thinking, answer = doubting_trace(question, given, HABITS[dial], rng)
        prompt = prompt_ids(tokenizer, "posterior", question.text, given)
        pairs.append((prompt, tokenizer.encode(completion(thinking, answer))))
    return pad(pairs, int(tokenizer.pad_token_id))


def free_traces(tokenizer: PreTrainedTokenizerFast, dial: Dial, rows: int, held_out: set[str], rng: Random) -> Batch:
    """Prior-view traces with any number of re-checks, whose re-checks are not learned.

    The base can think at any length, it only has the habit not to: like a real model that over-thinks. Where a trace
    re-checks, that choice carries no loss; where it does not, the loss is that of the words other than a re-check
    (`WITHOUT_CHECK`, see `build`). So how to go on and when to stop is learned, and how often to re-check is not.
    """
    habit = replace(HABITS[dial], checks=FREE_CHECKS, short=0.4, conclude=0.0)
    pairs: list[tuple[list[int], list[int]]] = []
    while len(pairs) < rows:
        question = _fresh_question(held_out, rng)
        thinking, answer = prior_trace(question, habit, rng)
        prompt = prompt_ids(tokenizer, "prior", question.text, question.answer)
        pairs.append((prompt, tokenizer.encode(completion(thinking, answer))))
    return without_choice(tokenizer, pad(pairs, int(tokenizer.pad_token_id)))


def without_choice(tokenizer: PreTrainedTokenizerFast, batch: Batch) -> Batch:
    """The batch without a loss on the choice to re-check; where a trace does not, it is one over the other words."""
    ids, targets = batch
    full_stop, *marks = tokenizer.convert_tokens_to_ids([".", *CHECK_WORDS])
    chooses = (targets[:, 1:] != IGNORED) & (ids[:, :-1] == full_stop)
    checks = torch.isin(targets[:, 1:], torch.tensor(marks))
    targets[:, 1:][chooses & checks] = IGNORED
    targets[:, 1:][chooses & ~checks] += WITHOUT_CHECK
    return ids, targets


def pad(pairs: Sequence[tuple[list[int], list[int]]], pad_id: int) -> Batch:
    """Join prompts and paths, padded on the right."""
    width = max(len(prompt) + len(path) for prompt, path in pairs)
    ids = torch.full((len(pairs), width), pad_id)
    targets = torch.full((len(pairs), width), IGNORED)
    for row, (prompt, path) in enumerate(pairs):
        end = len(prompt) + len(path)
        ids[row, :end] = torch.tensor(prompt + path)
        targets[row, len(prompt) : end] = torch.tensor(path)
    return ids, targets


def held_out_questions(names: Sequence[str] = ("dev", "longer_test")) -> set[str]:
    """Texts of the dev and test questions; those of `longer_test` beside `test` would not have occurred anyway."""
    files = [(QUESTIONS / f"{name}.jsonl").read_text(encoding="utf-8") for name in names]
    return {json.loads(line)["question"] for text in files for line in text.splitlines()}


def wrong_value(answer: int, rng: Random) -> int:
    """Another number than the answer: half of them are off by 1 to 9."""
    near = [answer + sign * away for sign in (-1, 1) for away in range(1, 10)]
    values = near if rng.random() < 1 / 2 else range(10, LARGEST + 1)
    return rng.choice([value for value in values if 10 <= value <= LARGEST and value != answer])


def _fresh_question(held_out: set[str], rng: Random) -> Question:
    """The next one drawn that is not held out."""
    while (question := sample_question(rng)).text in held_out:
        pass
    return question


def _fact(rng: Random) -> str:
    while True:
        left, step = rng.randint(0, LARGEST), Step(rng.choice(("add", "subtract")), rng.choice(OPERANDS))
        if 0 <= step.apply(left) <= LARGEST:
            return statement(left, step, step.apply(left))
