"""The constants that turn sums over tokens into the loss of one optimiser step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Normalisers:
    """Constants of one optimiser step over all micro-batches and ranks.

    Anything that is zero makes the scale zero, so a step without paths contributes exactly 0.

    Attributes:
        N_q: Questions of the step.
        K: Posterior samples per question, accepted or not.
        mean_length: Mean |z| of the step's posterior paths, in tokens.
        pg_tokens: Tokens in the policy gradient's mean.
    """

    N_q: int
    K: int
    mean_length: float
    pg_tokens: int

    @property
    def kl_scale(self) -> float:
        """1 / (N_q K mean_length), the factor of every form of the gated forward KL."""
        tokens = self.N_q * self.K * self.mean_length
        return 1.0 / tokens if tokens else 0.0

    @property
    def pg_scale(self) -> float:
        """1 / pg_tokens, the factor of the policy gradient."""
        return 1.0 / self.pg_tokens if self.pg_tokens else 0.0
