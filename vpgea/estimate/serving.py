"""What an SGLang server of the run's own takes of its devices, and how many sequences it advances together.

On a GPU it takes a fixed share of the memory at its start, for weights and for keys and values, whatever it is asked
for later; the rest is left to activations and CUDA graphs. On a CPU vpgea bounds the keys and values itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vpgea.config.schema import RunConfig
from vpgea.engines.lease import engine_kind
from vpgea.engines.sglang.server.command import cpu_pool_tokens
from vpgea.engines.sglang.server.places import MEMORY_SHARE, devices_per_server, last_value
from vpgea.estimate.hardware import Hardware

# Where no --mem-fraction-static is given SGLang takes what its own rule for activations and graphs leaves: on one card
# of 80 GB 8,192 tokens of prefill at 1.5 MB and about 0.7 GB more.
STATIC_SHARE = 0.84
# Seconds that scheduling and the launch of captured graphs add to a forward pass, whatever its layers. Assumed.
SERVER_PASS_S = 2e-3


@dataclass(frozen=True, kw_only=True)
class Serving:
    """One server.

    Attributes:
        weights: Bytes on one of its devices.
        pool: Bytes of keys and values there.
        kv: Bytes of keys and values of a token there.
        most: Sequences that it may be sent at a time.
        share: Of a device's memory that weights and pool may take.
        program: Bytes of its processes, where they share the memory with the model.
    """

    weights: int
    pool: int
    kv: int
    most: int
    share: float
    program: int

    @classmethod
    def of(cls, config: RunConfig, weights: int, kv: int, machine: Hardware, program: int) -> Serving | None:
        """None where transformers samples, or servers behind URLs, of whose memory nothing is known.

        Args:
            config: Of the run.
            weights: Bytes of the model in its dtype.
            kv: Bytes of keys and values of a token.
            machine: Whose memory_bytes a device has free.
            program: Bytes of Python with its libraries.
        """
        if engine_kind(config) != "sglang" or config.sglang.server_url:
            return None
        most = config.sglang.max_concurrency
        if not machine.on_gpu:
            pool = cpu_pool_tokens(config, kv, machine.memory_bytes) * kv
            return cls(weights=weights, pool=pool, kv=kv, most=most, share=1.0, program=2 * program)
        size = devices_per_server(config.sglang.options)
        share = _share(config.sglang.options)
        weights, kv = weights // size, max(kv // size, 1)
        pool = max(int(share * machine.memory_bytes) - weights, 0)
        return cls(weights=weights, pool=pool, kv=kv, most=most, share=share, program=0)

    def together(self, end: float) -> int:
        """Sequences under way at a time, of `end` tokens on average when they end."""
        return max(min(self.most, int(self.pool // (self.kv * max(end, 1)))), 1)

    def memory(self, longest: int) -> dict[str, int]:
        """Bytes on one device: all of it, or more where the pool cannot hold one sequence of `longest` tokens."""
        pool = max(self.pool, longest * self.kv)
        parts = {"program": self.program, "weights": self.weights, "KV pool": pool}
        parts["activations and graphs"] = int((self.weights + pool) * (1 / self.share - 1))
        return {name: size for name, size in parts.items() if size}

    @property
    def kept(self) -> int:
        """Bytes on a GPU that is trained while the server stays: its share, and what SGLang's rule leaves beside it."""
        return int((self.weights + self.pool) * (1 + (1 - STATIC_SHARE) / self.share))


def _share(options: Sequence[str]) -> float:
    given = last_value(options, MEMORY_SHARE)
    try:
        found = STATIC_SHARE if given is None else float(given)
    except ValueError:
        return STATIC_SHARE
    return found if 0 < found <= 1 else STATIC_SHARE  # the server refuses what is none
