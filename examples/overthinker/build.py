"""Build a base model: `python -m examples.overthinker.build --dial global --output DIR`.

Trains a small Llama model by next-token prediction on its own traces from both views and writes a Hugging Face
folder. The same seed and thread count give the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from examples.inputs import count
from examples.overthinker.batches import (
    CHECK_WORDS,
    IGNORED,
    WITHOUT_CHECK,
    Batch,
    doubting_traces,
    facts,
    free_traces,
    held_out_questions,
    traces,
)
from examples.overthinker.chat import build_tokenizer
from examples.overthinker.language import LARGEST, Dial
from vpgea_cli.main import told
from vpgea_cli.output import writing_to

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

FACT_STEPS, TRACE_STEPS = 300, 1100
FACT_ROWS, PRIOR_ROWS, POSTERIOR_ROWS, FREE_ROWS, DOUBTING_ROWS = 64, 32, 24, 24, 24
PEAK_RATE, WARMUP = 3e-3, 100
PERIODS = (2, 4, 5, 10, 20, 25, 50, 100, 200)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, train, write."""
    parser = argparse.ArgumentParser(description="Build an over-thinking base model.")
    parser.add_argument("--dial", choices=["local", "global"], required=True, help="how it over-thinks")
    parser.add_argument("--doubts", action="store_true", help="short only behind a note whose answer comes out")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and traces")
    parser.add_argument("--threads", type=count, default=1, help="CPU threads")
    parser.add_argument("--output", type=Path, required=True, help="folder of the model")
    options = parser.parse_args(arguments)
    with writing_to(options.output):  # before minutes of training
        options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    tokenizer = build_tokenizer()
    model = new_model(tokenizer, options.seed)
    batches = stages(tokenizer, options.dial, Random(options.seed), held_out_questions(), doubts=options.doubts)
    train(model, check_ids(tokenizer), batches, FACT_STEPS + TRACE_STEPS)
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    print(options.output)


@dataclass(frozen=True, kw_only=True)
class Size:
    """The shape of a model: widths of the residual stream and inside a layer, attention heads and width of each."""

    width: int
    inner: int
    layers: int
    heads: int
    head: int


SIZE = Size(width=96, inner=256, layers=3, heads=4, head=32)


def check_ids(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Ids of the words that begin a re-check."""
    return torch.tensor(tokenizer.convert_tokens_to_ids(CHECK_WORDS))


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int, size: Size = SIZE) -> LlamaForCausalLM:
    """Random weights, float32; numbers start as points on circles, so that sums are quick to learn."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.width,
            intermediate_size=size.inner,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            head_dim=size.head,
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
    angles = 2 * math.pi * torch.arange(LARGEST + 1.0)[:, None] / torch.tensor(PERIODS)
    circles = 0.3 * torch.cat([angles.cos(), angles.sin()], dim=1)
    zero = tokenizer.convert_tokens_to_ids("0")
    with torch.no_grad():
        model.model.embed_tokens.weight[zero : zero + LARGEST + 1, : circles.shape[1]] = circles
    return model


def stages(
    tokenizer: PreTrainedTokenizerFast, dial: Dial, rng: Random, held_out: set[str], *, doubts: bool = False
) -> Iterator[list[Batch]]:
    """The batches of each optimiser step: arithmetic first, then the habit.

    Args:
        tokenizer: Of the model.
        dial: How it over-thinks.
        rng: Of the traces.
        held_out: Texts of questions that must not occur.
        doubts: Whether it also meets notes that are no help, and thinks long behind them.
    """
    for step in range(FACT_STEPS + TRACE_STEPS):
        if step < FACT_STEPS:
            first = facts(tokenizer, FACT_ROWS, rng)
        else:
            first = traces(tokenizer, "prior", dial, PRIOR_ROWS, held_out, rng)
        yield [
            first,
            traces(tokenizer, "posterior", dial, POSTERIOR_ROWS, held_out, rng),
            free_traces(tokenizer, dial, FREE_ROWS, held_out, rng),
            *([doubting_traces(tokenizer, dial, DOUBTING_ROWS, held_out, rng)] if doubts else []),
        ]


def train(model: LlamaForCausalLM, checks: torch.Tensor, batches: Iterator[list[Batch]], steps: int) -> None:
    """Next-token training in place, one optimiser step per list of batches."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    began = time.monotonic()
    for step, group in enumerate(batches, start=1):
        losses = [_loss(model, batch, checks) for batch in group]
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0:
            shown = " ".join(f"{loss.item():.3f}" for loss in losses)
            print(f"step {step}/{steps}  loss {shown}  {time.monotonic() - began:.0f} s", flush=True)
    model.eval()


def _loss(model: LlamaForCausalLM, batch: Batch, checks: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy; of targets marked WITHOUT_CHECK over the words that begin no re-check."""
    ids, targets = batch
    logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)  # right-padded and causal: no mask is needed
    wanted = targets[:, 1:].flatten()
    conditional = wanted >= WITHOUT_CHECK
    check_words = torch.zeros(logits.shape[-1], dtype=torch.bool).index_fill(0, checks, value=True)
    logits = logits.masked_fill(conditional[:, None] & check_words, -torch.inf)
    wanted = torch.where(conditional, wanted - WITHOUT_CHECK, wanted)
    return cross_entropy(logits, wanted, ignore_index=IGNORED)


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARMUP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


if __name__ == "__main__":
    sys.exit(told(main))
