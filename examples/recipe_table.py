"""What a recipe costs on named hardware: `python examples/recipe_table.py examples/r1-distill-1.5b.yaml`.

Computed from the model's published dimensions and from published peaks of the cards; nothing is downloaded or run.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError, did_you_mean
from vpgea.estimate.estimator import Estimator
from vpgea.estimate.hardware import NAMED
from vpgea.estimate.phase_estimate import PhaseEstimate, whole_run
from vpgea.modeling.shape import published_shape
from vpgea_cli.main import told
from vpgea_cli.output import aligned

_QWEN2: dict[str, Any] = {"model_type": "qwen2", "tie_word_embeddings": False, "num_hidden_layers": 28}

_QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "tie_word_embeddings": True,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
}


@dataclass(frozen=True)
class Assumed:
    """Mean lengths in tokens. Not measured by us: prompts as in mathematics benchmarks, completions a guess."""

    prior_prompt: int = 150
    posterior_prompt: int = 250
    prior_completion: int = 3500
    posterior_completion: int = 2500
    held_out_questions: int = 500


DIMENSIONS: dict[str, dict[str, Any]] = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": {
        **_QWEN2,
        "hidden_size": 1536,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "vocab_size": 151936,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": {
        **_QWEN2,
        "hidden_size": 3584,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": {
        "model_type": "llama",
        "tie_word_embeddings": False,
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
    },
    "Qwen/Qwen3-1.7B": {
        **_QWEN3,
        "num_hidden_layers": 28,
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "intermediate_size": 6144,
    },
    "Qwen/Qwen3-4B": {
        **_QWEN3,
        "num_hidden_layers": 36,
        "hidden_size": 2560,
        "num_attention_heads": 32,
        "intermediate_size": 9728,
    },
}


def estimates(config: RunConfig, assumed: Assumed, hardware: str) -> list[PhaseEstimate]:
    """Rollout, filter, distill and eval of one round, and the whole run: mean lengths, but the memory of the caps."""
    formulas = estimator(config, hardware)
    questions = config.loop.questions_per_round
    assert questions is not None, "a recipe names its questions per round"
    prompts = np.full(questions, assumed.prior_prompt), np.full(questions, assumed.posterior_prompt)
    held_out = np.full(assumed.held_out_questions, assumed.prior_prompt)
    expected = [
        *formulas.round(*prompts, assumed.prior_completion, assumed.posterior_completion),
        formulas.evaluation(held_out, assumed.prior_completion),
    ]
    longest = [*formulas.round(*prompts), formulas.evaluation(held_out)]
    phases = [replace(one, memory=full.memory) for one, full in zip(expected, longest, strict=True)]
    return [*phases, whole_run(phases[:3], phases[3], config.loop)]


def table(config: RunConfig, assumed: Assumed | None = None) -> list[str]:
    """Lines of the table: sizes once, times for every kind of hardware."""
    columns = {name: estimates(config, assumed or Assumed(), name) for name in NAMED}
    rows = [["phase", "sampled", "trained", "peak memory", "disk", *columns]]
    for index, phase in enumerate(next(iter(columns.values()))):
        figures = [_millions(phase.sampled_tokens), _millions(phase.trained_tokens)]
        figures += [f"{size / 1e9:.1f} GB" for size in (phase.peak_memory, phase.disk_bytes)]
        rows.append([phase.phase, *figures, *(_time(each[index].seconds) for each in columns.values())])
    return aligned(rows)


def longer_paths(config: RunConfig) -> list[str]:
    """Peak memory by the cap on new tokens; of the training step also where activations are computed again.

    A server takes the whole card: for it, how many sequences of the cap it has room for at a time.
    """
    served = config.rollout.engine == "sglang"
    sampling = ["sequences at a time"] if served else ["rollout", "filter"]
    rows = [["new tokens", *sampling, "distill", "distill, recomputing"]]
    for cap in (8192, 16384, 32768):
        kept, recomputed = (_with(config, cap, recompute=recompute) for recompute in (False, True))
        phases = estimates(kept, Assumed(), next(iter(NAMED)))[:3]
        phases.append(estimates(recomputed, Assumed(), next(iter(NAMED)))[2])
        cells = [f"{phase.peak_memory / 1e9:.1f} GB" for phase in phases]
        if (serving := estimator(kept, next(iter(NAMED))).serving) is not None:
            cells[:2] = [f"{serving.together(Assumed().posterior_prompt + cap):,}"]
        rows.append([f"{cap:,}", *cells])
    return aligned(rows)


def estimator(config: RunConfig, hardware: str) -> Estimator:
    """Of a recipe on named hardware."""
    return Estimator(config, published_shape(DIMENSIONS[config.model.path], dtype_bytes=2), NAMED[hardware])


def _with(config: RunConfig, max_new_tokens: int, *, recompute: bool) -> RunConfig:
    rollout = config.rollout.model_copy(update={"max_new_tokens": max_new_tokens})
    distill = config.distill.model_copy(update={"gradient_checkpointing": recompute})
    return config.model_copy(update={"rollout": rollout, "distill": distill})


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{max(seconds / 60, 1):.0f} min"


def _millions(tokens: int) -> str:
    return f"{tokens / 1e6:.1f} M" if tokens else "-"


def main() -> None:
    """Read the recipe, print its tables.

    Raises:
        UsageError: It is no recipe of a model whose dimensions stand here.
    """
    parser = argparse.ArgumentParser(description="What a recipe costs on named hardware.")
    parser.add_argument("recipe", type=Path, help="a configuration, such as examples/qwen3-4b.yaml")
    file = parser.parse_args().recipe
    recipe = resolve(file=file).config
    if recipe.model.path not in DIMENSIONS:
        mend = did_you_mean(recipe.model.path, DIMENSIONS, f"the models are {', '.join(DIMENSIONS)}")
        raise UsageError(f"{file}: no dimensions of {recipe.model.path!r} are known", why="none stand here", mend=mend)
    if recipe.loop.questions_per_round is None:
        why = "what a round costs follows from it"
        raise UsageError(f"{file} has no loop.questions_per_round", why=why, mend="set it there")
    sys.stdout.write("\n".join([*table(recipe), "", *longer_paths(recipe)]) + "\n")


if __name__ == "__main__":
    sys.exit(told(main))
