"""What tells early that training goes wrong: figures that are not finite, collapse, and words of reflection."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vpgea.config.training import DistillConfig
from vpgea.errors import VpgeaError
from vpgea.training.data import TrainingPath

# Words with which reasoning models doubt, check and turn back; they are what shortening first takes away.
_DOUBT, _CHECK = ("wait", "hmm", "hm", "maybe", "perhaps"), ("check", "recheck", "double-check", "verify")
EPISTEMIC_WORDS = frozenset((*_DOUBT, *_CHECK, "alternatively", "actually", "however"))


@dataclass(kw_only=True)
class Guards:
    """The state of one training run's guards; plain numbers, kept in checkpoints.

    Attributes:
        bad_steps: Steps left out in a row.
        skipped_steps: Steps left out in all.
        first_entropy: Of the first step of the run that had one, in nats.
        alarms: How many there were.
        ended: Why training is to end here; None while it goes on.
    """

    config: DistillConfig
    bad_steps: int = 0
    skipped_steps: int = 0
    first_entropy: float | None = None
    alarms: int = 0
    ended: str | None = None

    def state(self) -> dict[str, Any]:
        """JSON values for a checkpoint."""
        names = ("bad_steps", "skipped_steps", "first_entropy", "alarms", "ended")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the values of `state()`."""
        for name in self.state():
            setattr(self, name, state[name])

    def is_usable(self, step: int, loss: float, gradient_norm: float) -> bool:
        """Whether a step may be taken.

        Raises:
            VpgeaError: Too many in a row may not.
        """
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            self.bad_steps = 0
            return True
        self.bad_steps += 1
        self.skipped_steps += 1
        if self.bad_steps >= self.config.max_bad_steps:
            raise VpgeaError(
                f"the gradient of step {step} is not finite",
                why=f"loss {loss}, gradient norm {gradient_norm}; {self.bad_steps} steps in a row were left out, "
                "and the weights are those before them",
                mend="lower distill.learning_rate, or use --dtype float32; the last checkpoint stays as it is",
            )
        return False

    def watch(self, entropy: float | None, reference_kl: float) -> str | None:
        """What is alarming about a step, if anything; sets `ended` where training is to end here."""
        floor, limit = self.config.entropy_floor, self.config.max_reference_kl
        if limit is not None and reference_kl > limit:
            self.ended = f"the KL to the base model is {reference_kl:.3g} nats per token, the limit {limit:g}"
        if entropy is None:
            return None
        if self.first_entropy is None:
            self.first_entropy = entropy
        if entropy >= floor * self.first_entropy:
            return None
        self.alarms += 1
        alarm = f"entropy fell from {self.first_entropy:.3g} to {entropy:.3g} nats per token"
        if self.config.stop_on_collapse and self.ended is None:
            self.ended = alarm
        return alarm


def epistemic_ids(tokenizer: Any) -> npt.NDArray[np.int64]:
    """Ids of the single tokens that are one of EPISTEMIC_WORDS, whatever their case and the space before them."""
    spaces = "Ġ▁ "  # what stands for a space before a word in byte-level and in SentencePiece vocabularies
    vocabulary = tokenizer.get_vocab().items()
    return np.array([index for text, index in vocabulary if text.lstrip(spaces).lower() in EPISTEMIC_WORDS], np.int64)


def per_1000_tokens(paths: Iterable[TrainingPath], ids: npt.NDArray[np.int64]) -> float | None:
    """How often one of `ids` stands in the completions, per 1,000 tokens; None without tokens."""
    completions = [path.completion_ids for path in paths]
    tokens = sum(map(len, completions))
    count = sum(int(np.isin(completion, ids).sum()) for completion in completions)
    return round(1000 * count / tokens, 3) if tokens else None
