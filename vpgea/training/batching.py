"""Micro-batches: bins of paths with a token budget, as many on every rank, with about the same work."""

from __future__ import annotations

from collections.abc import Sequence

from vpgea.config.training import DistillConfig
from vpgea.training.data import TrainingPath
from vpgea.training.ranks import Ranks


def rank_batches(
    paths: Sequence[TrainingPath], config: DistillConfig, hidden: int, ranks: Ranks
) -> list[list[TrainingPath]]:
    """This rank's micro-batches, as many as every other rank's. hidden: width of the model."""
    batches = micro_batches(
        paths, config.max_tokens_per_batch, packing=config.packing, hidden=hidden, ranks=ranks.world
    )
    return [row[ranks.rank] for row in batches]


def micro_batches(
    paths: Sequence[TrainingPath], max_tokens: int, *, packing: bool, hidden: int, ranks: int = 1
) -> list[list[list[TrainingPath]]]:
    """Cut a step's paths into micro-batches, as many for every rank, with about the same work.

    Args:
        paths: All of them, of all ranks.
        max_tokens: Of a batch, padding included; a single path may be longer.
        packing: Sequences lie end to end, and the bins are filled evenly.
        hidden: Width of the model, for what attention costs.
        ranks: How many there are.

    Returns:
        `batches[i][rank]`, the paths of a rank's i-th micro-batch; every path is in one of them. Ranks that have none
        left get empty lists.
    """
    if not paths:
        return []
    ordered = sorted(paths, key=lambda path: (-path.length, path.index))
    if packing:
        bins = _even_bins(ordered, max_tokens, ranks)
    else:
        bins = _padded_bins(ordered, max_tokens)
        bins += [[] for _ in range(-len(bins) % ranks)]
    bins.sort(key=lambda batch: -sum(cost(path.length, hidden) for path in batch))
    rows = [bins[start : start + ranks] for start in range(0, len(bins), ranks)]
    return [row if number % 2 == 0 else row[::-1] for number, row in enumerate(rows)]  # in turn: who gets the most


def cost(length: int, hidden: int) -> float:
    """What a sequence costs, in tokens without context.

    A layer multiplies a token with about 12 hidden^2 parameters, and with 2 hidden numbers for each token before it.
    """
    return length * (1 + length / (12 * hidden))


def _even_bins(ordered: Sequence[TrainingPath], capacity: int, multiple: int) -> list[list[TrainingPath]]:
    """Paths, the longest first, each into the emptiest bin; as few bins as hold them, but a multiple of `multiple`."""
    total = sum(path.length for path in ordered)
    count = -(-total // (capacity * multiple)) * multiple
    while True:
        bins: list[list[TrainingPath]] = [[] for _ in range(count)]
        filled = [0] * count
        for path in ordered:
            emptiest = filled.index(min(filled))
            if bins[emptiest] and filled[emptiest] + path.length > capacity:
                break
            bins[emptiest].append(path)
            filled[emptiest] += path.length
        else:
            return bins
        count += multiple


def _padded_bins(ordered: Sequence[TrainingPath], capacity: int) -> list[list[TrainingPath]]:
    """Neighbours in length together, for as long as their rectangle fits."""
    bins: list[list[TrainingPath]] = []
    for path in ordered:
        if bins and (len(bins[-1]) + 1) * bins[-1][0].length <= capacity:
            bins[-1].append(path)
        else:
            bins.append([path])
    return bins
