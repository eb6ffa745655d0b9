"""The optimiser, and the learning rate of each of its steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vpgea.config.training import DistillConfig


def make_optimizer(config: DistillConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """AdamW in one fused kernel, or Adafactor (arXiv 1804.04235)."""
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.adam_betas[0], config.adam_betas[1]),
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(config: DistillConfig, step: int, total: int) -> float:
    """Linear warm-up to the peak, then constant, or linear or cosine decay to the final share of it at `total`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(total - config.warmup_steps, 1)
    decay = {"constant": 1.0, "linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share))}
    final = config.final_learning_rate if config.schedule != "constant" else 0.0
    return config.learning_rate * (final + (1 - final) * decay[config.schedule])
