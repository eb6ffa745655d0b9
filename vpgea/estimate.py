"""What the phases cost, before they run: tokens, arithmetic, disk, memory and time.

Counts of tokens and bytes are upper bounds or follow from lengths that are known. Times are rough: one rate for
multiplying, one for moving bytes, one overhead per layer and forward pass (vpgea/hardware.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vpgea.config import RunConfig
from vpgea.engines.score_batches import sequences_per_batch
from vpgea.evaluate import as_rollout
from vpgea.hardware import Hardware
from vpgea.modeling.shape import ModelShape
from vpgea.rollout import BYTES_PER_TOKEN

Lengths = npt.NDArray[np.int64]

_ANSWER_TOKENS = 16  # the cue, the answer and its closing delimiter behind a scored path
_CACHE_TRAFFIC = 3  # every step reads the cache to attend, and copies it (read, write) to grow it by a token
