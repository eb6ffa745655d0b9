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
from examples.overthinker.language import LARGEST, OPERANDS, Dial, Step, sample_question
from examples.overthinker.traces import HABITS, posterior_trace, prior_trace, statement

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

QUESTIONS = Path(__file__).with_name("questions")
IGNORED = -100
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
        question = sample_question(rng)
        if question.text in held_out:
            continue
        if view == "prior":
            thinking, answer = prior_trace(question, HABITS[dial], rng)
        else:
            thinking, answer = posterior_trace(question, rng)
        prompt = prompt_ids(tokenizer, view, question.text, question.answer)
        pairs.append((prompt, tokenizer.encode(completion(thinking, answer))))
    return pad(pairs, int(tokenizer.pad_token_id))


def short_traces(tokenizer: PreTrainedTokenizerFast, dial: Dial, rows: int, held_out: set[str], rng: Random) -> Batch:
    """Short prior-view traces whose choice not to re-check carries no loss.

    The base can think without re-checks, it only hardly ever does: like a real model that over-thinks. The token
    behind each full stop is where that choice is made.
    """
    full_stop = tokenizer.convert_tokens_to_ids(".")
    pairs: list[tuple[list[int], list[int]]] = []
    while len(pairs) < rows:
        question = sample_question(rng)
        if question.text not in held_out:
            thinking, answer = prior_trace(question, replace(HABITS[dial], short=1.0, conclude=0.0), rng)
            pairs.append(
                (prompt_ids(tokenizer, "prior", question.text, answer), tokenizer.encode(completion(thinking, answer)))
            )
    ids, targets = pad(pairs, int(tokenizer.pad_token_id))
    targets[:, 1:][ids[:, :-1] == full_stop] = IGNORED
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


def held_out_questions() -> set[str]:
    """Texts of the dev and test questions."""
    files = [(QUESTIONS / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("dev", "test")]
    return {json.loads(line)["question"] for text in files for line in text.splitlines()}


def _fact(rng: Random) -> str:
    while True:
        left, step = rng.randint(0, LARGEST), Step(rng.choice(("add", "subtract")), rng.choice(OPERANDS))
        if 0 <= step.apply(left) <= LARGEST:
            return statement(left, step, step.apply(left))
