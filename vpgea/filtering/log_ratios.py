"""How far a path's log q - log pi goes (numpy, float64)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vpgea.config.filtering import PlausibilityConfig


@dataclass(frozen=True)
class PathStats:
    """In nats: the worst window's mean of log q - log pi, its quantile, and the smallest log pi."""

    window: float
    quantile: float
    log_pi: float


def path_stats(log_q: npt.ArrayLike, log_pi: npt.ArrayLike, config: PlausibilityConfig) -> PathStats:
    """Both (|z|,), |z| >= 1. A path shorter than the window is one window."""
    pi = np.asarray(log_pi, np.float64)
    ratio = np.asarray(log_q, np.float64) - pi
    windows = np.lib.stride_tricks.sliding_window_view(ratio, min(config.window, ratio.size)).mean(axis=-1)
    return PathStats(float(windows.max()), float(np.quantile(ratio, config.quantile)), float(pi.min()))
