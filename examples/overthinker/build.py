"""Build a base model: `python -m examples.overthinker.build --dial global --output DIR`.

Trains a small Qwen2 model by next-token prediction on its own traces from both views and writes a Hugging Face
folder. The same seed and thread count give the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from examples.overthinker.chat import View, build_tokenizer, completion, prompt_ids
from examples.overthinker.language import Dial, Question, sample_question
from examples.overthinker.traces import HABITS, posterior_trace, prior_trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

QUESTIONS = Path(__file__).with_name("questions")
PRIOR_ROWS, POSTERIOR_ROWS = 32, 48
PEAK_RATE = 3e-3
WARMUP = 100


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, train, write."""
    parser = argparse.ArgumentParser(description="Build an over-thinking base model.")
    parser.add_argument("--dial", choices=["local", "global"], required=True, help="how it over-thinks")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and traces")
    parser.add_argument("--steps", type=int, default=1500, help="optimiser steps")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--output", type=Path, required=True, help="folder of the model")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    tokenizer = build_tokenizer()
    model = train(tokenizer, options.dial, options.seed, options.steps)
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    print(options.output)


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen2ForCausalLM:
    """Random weights, float32."""
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=0.05,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True, top_k=0
    )
    return model


def train(tokenizer: PreTrainedTokenizerFast, dial: Dial, seed: int, steps: int) -> Qwen2ForCausalLM:
    """Next-token training on fresh traces from both views; held-out questions never occur."""
    held_out = held_out_questions()
    model, rng = new_model(tokenizer, seed), Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    began = time.monotonic()
    for step in range(steps):
        losses = []
        for view, rows in (("prior", PRIOR_ROWS), ("posterior", POSTERIOR_ROWS)):
            ids, targets = batch(tokenizer, view, dial, rows, held_out, rng)
            logits = model(input_ids=ids).logits  # right-padded and causal: no mask is needed
            loss = cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100)
            (loss / 2).backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 99:
            seconds = time.monotonic() - began
            print(f"step {step + 1}/{steps}  loss {losses[0]:.3f} prior, {losses[1]:.3f} posterior  {seconds:.0f} s", flush=True)
    return model.eval()


def batch(
    tokenizer: PreTrainedTokenizerFast, view: View, dial: Dial, rows: int, held_out: set[str], rng: Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, targets), int64 (rows, T), right-padded; targets are -100 on prompt and padding."""
    pairs = []
    while len(pairs) < rows:
        question = sample_question(rng)
        if question.text in held_out:
            continue
        thinking, answer = prior_trace(question, HABITS[dial], rng) if view == "prior" else posterior_trace(question, rng)
        prompt = prompt_ids(tokenizer, view, question.text, question.answer)
        pairs.append((prompt, tokenizer.encode(completion(thinking, answer), add_special_tokens=False)))
    width = max(len(prompt) + len(path) for prompt, path in pairs)
    ids = torch.full((rows, width), int(tokenizer.pad_token_id))
    targets = torch.full((rows, width), -100)
    for row, (prompt, path) in enumerate(pairs):
        ids[row, : len(prompt) + len(path)] = torch.tensor(prompt + path)
        targets[row, len(prompt) : len(prompt) + len(path)] = torch.tensor(path)
    return ids, targets


def held_out_questions() -> set[str]:
    """Texts of the dev and test questions."""
    lines = [line for name in ("dev", "test") for line in (QUESTIONS / f"{name}.jsonl").read_text().splitlines()]
    return {Question.parse(json.loads(line)["question"]).text for line in lines}


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


if __name__ == "__main__":
    main()
