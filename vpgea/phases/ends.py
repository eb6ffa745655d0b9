"""How the samples of a phase ended: by themselves, at the cap, and whether their thinking did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vpgea.prompts.views import Views
from vpgea.runs.progress import Progress
from vpgea.storage.rows import Bool, FinishReason, iterate_rows

TOLD_AFTER = 8  # responses that ended by themselves, none of them with an end of thinking


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _EndColumns:
    finish_reason: FinishReason
    cut_off: Bool


@dataclass(kw_only=True)
class Ends:
    """Counts of samples, which grow.

    Attributes:
        at_cap: Ran to the cap.
        unended: Ended by themselves without an end of thinking: they count as cut off, and there is no answer in them.
    """

    samples: int = 0
    at_cap: int = 0
    unended: int = 0

    @classmethod
    def of(cls, shards: Iterable[Path]) -> Ends:
        """Those of stored samples, graded or not."""
        ends = cls()
        for row in iterate_rows(list(shards), _EndColumns):
            ends.add(row.finish_reason, cut_off=row.cut_off)
        return ends

    def add(self, finish_reason: str, *, cut_off: bool) -> None:
        self.samples += 1
        self.at_cap += finish_reason == "length"
        self.unended += finish_reason != "length" and cut_off

    @property
    def none_ends_thinking(self) -> bool:
        """Whether every response that ended by itself lacks an end of thinking."""
        return 0 < self.unended == self.samples - self.at_cap

    def remarks(self, views: Views, cap: int) -> list[str]:
        """What people should be told of all of them. cap: of a completion, in tokens."""
        if self.samples and self.at_cap == self.samples:
            ends = " ".join(views.tokenizer.convert_ids_to_tokens(list(views.stop_ids)))
            return [
                f"all {self.samples:,} samples ran to the cap of {cap:,} tokens: either it is too low, or the model "
                f"does not end with {ends} (eos_token_id of its generation_config.json)"
            ]
        return [self.no_end_remark(views)] if self.unended else []

    def no_end_remark(self, views: Views) -> str:
        """Of responses without an end of thinking, and what to do."""
        ended = self.samples - self.at_cap
        count, lack = f"{self.unended:,} of {ended:,} responses ({self.unended / ended:.0%})", "do not hold"
        if self.none_ends_thinking:
            count, lack = f"none of {ended:,} responses", "holds"
        return (
            f"{count} that ended by themselves {lack} the end of thinking {views.end_shown}: "
            "they count as cut off, without an answer. Set views.end_of_thinking to what ends this model's thinking, "
            "or to null for a model that does not think, from which only the prior view can be drawn"
        )


def tell_ends(shards: Iterable[Path], views: Views, cap: int, progress: Progress) -> Ends:
    """Count how stored samples ended, and say what people should know of it."""
    ends = Ends.of(shards)
    for remark in ends.remarks(views, cap):
        progress.warn(remark)
    return ends


class EndsWatch:
    """Tells at once where responses end and thinking never does."""

    def __init__(self, views: Views, progress: Progress) -> None:
        self._views, self._progress = views, progress
        self._ends, self._told = Ends(), False

    def add(self, finish_reason: str, *, cut_off: bool) -> None:
        """One more sample."""
        self._ends.add(finish_reason, cut_off=cut_off)
        if not self._told and self._ends.none_ends_thinking and self._ends.unended >= TOLD_AFTER:
            self._told = True
            self._progress.warn(self._ends.no_end_remark(self._views))
