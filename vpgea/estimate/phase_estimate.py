"""The cost of a phase, and of the phases of a run together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vpgea.config.schema import LoopConfig
from vpgea.runs.history import planned_evaluations


@dataclass(frozen=True, kw_only=True)
class PhaseEstimate:
    """The cost of one phase.

    Attributes:
        processed_tokens: Prompts, prefixes and scored paths.
        disk_bytes: The most at one time, of which scratch_bytes are gone when the phase has ended.
        memory: Peak bytes by part.
        seconds: On all devices of the hardware side by side, which for the training step are its ranks.
    """

    phase: str
    sampled_tokens: int
    processed_tokens: int
    trained_tokens: int
    flops: float
    disk_bytes: int
    scratch_bytes: int = 0
    memory: dict[str, int]
    seconds: float

    @property
    def peak_memory(self) -> int:
        return sum(self.memory.values())


def whole_run(one_round: Sequence[PhaseEstimate], evaluation: PhaseEstimate, config: LoopConfig) -> PhaseEstimate:
    """A loop: every round's phases, and evaluations, that of the base model among them."""
    parts = [*([evaluation] * len(planned_evaluations(config))), *(list(one_round) * config.rounds)]
    scratch = max(part.scratch_bytes for part in parts)
    return PhaseEstimate(
        phase="whole run",
        sampled_tokens=sum(part.sampled_tokens for part in parts),
        processed_tokens=sum(part.processed_tokens for part in parts),
        trained_tokens=sum(part.trained_tokens for part in parts),
        flops=sum(part.flops for part in parts),
        disk_bytes=sum(part.disk_bytes - part.scratch_bytes for part in parts) + scratch,
        scratch_bytes=scratch,
        memory=max(parts, key=lambda part: part.peak_memory).memory,
        seconds=sum(part.seconds for part in parts),
    )
