"""The section on lengths: how many samples are right, wrong or cut, by their tokens, on one axis for all runs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from vpgea.report.model import Bars, Block, Section, Words
from vpgea.report.sources import Sources
from vpgea.runs.complete_phase import CompletePhase
from vpgea.storage.shards import read_table

_BINS = 24
_RIGHT, _WRONG, _CUT, _UNGRADED = range(4)
_KINDS = ("right", "wrong", "cut at the cap", "not graded")


def lengths_section(sources: Sources) -> Section:
    """A histogram for each run on each set."""
    blocks: list[Block] = []
    for name in sources.sets:
        found = {run: _tokens(sets[name]) for run, sets in sources.evaluations.items()}
        longest = max((int(tokens.max()) for tokens, _ in found.values() if tokens.size), default=0)
        start = f"{name}: " if name else ""
        if not longest:
            blocks.append(Words(f"{start}the tokens of no sample are known"))
            continue
        width = _round(longest / _BINS)
        edges = np.arange(0, longest + width, width)
        for number, (run, (tokens, kinds)) in enumerate(found.items()):
            counts = [np.histogram(tokens[kinds == kind], edges)[0].tolist() for kind in range(len(_KINDS))]
            blocks.append(
                Bars(
                    name=f"{name}-lengths-{number}" if name else f"lengths-{number}",
                    title=f"{start}{run}",
                    x_label="completion tokens",
                    y_label="samples",
                    labels=[f"{edge:,}" for edge in edges.tolist()],
                    stacks=[(kind, values) for kind, values in zip(_KINDS, counts, strict=True) if any(values)],
                    edges=True,
                    note="a response that the cap cut is not counted as wrong here, though it is graded so",
                )
            )
    return Section("lengths", "Lengths", blocks)


def _tokens(evaluation: CompletePhase) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(n,) tokens of each sample of which they are known, and its kind."""
    counts, kinds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for path in evaluation.chunks():
        table = read_table(path)
        length = pc.list_value_length(table["completion_ids"])
        if "recorded_tokens" in table.column_names:  # of an import, where a count may stand without ids
            length = pc.coalesce(length, pc.cast(table["recorded_tokens"], length.type))
        known = pc.is_valid(length).to_numpy()
        status = np.array(table["status"].to_pylist(), object)
        kind = np.full(table.num_rows, _UNGRADED)
        kind[status == "correct"], kind[status == "wrong"] = _RIGHT, _WRONG
        kind[np.array(table["finish_reason"].to_pylist(), object) == "length"] = _CUT
        counts.append(pc.fill_null(length, 0).to_numpy()[known].astype(np.int64))
        kinds.append(kind[known])
    return np.concatenate(counts), np.concatenate(kinds)


def _round(width: float) -> int:
    """The next of 1, 2, 5, 10, 20, ... ."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= width:
                return factor * power
        power *= 10
