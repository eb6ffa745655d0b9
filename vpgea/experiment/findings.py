"""All that an experiment found, and the files that tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from vpgea.experiment.ends import EndOfTraining, ends_of_training
from vpgea.experiment.learning import LearningCurve, learning_curves
from vpgea.experiment.pictures import is_picture, learning_charts, price_chart
from vpgea.experiment.prices import PriceSweep, chosen_of, sweep_prices
from vpgea.experiment.results import SettingResult, results_of
from vpgea.experiment.rounds import read_rounds, rounds_table
from vpgea.experiment.runs import Workshop
from vpgea.report import figures
from vpgea.report.model import Points
from vpgea.storage.files import write_bytes, write_json
from vpgea.storage.records import json_of
from vpgea.storage.shards import write_table_anew

REPORT, RESULTS, ROUNDS, PICTURES = "report.md", "results.json", "rounds.arrow", "pictures"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an experiment found.

    Attributes:
        reference: The objective that the others are held against.
        ended: Run's name → why it could go no further.
        settings: Of the chosen runs on the test questions: each setting on each test.
        prices: Every price on the held-out questions; learning: the rounds of the chosen ones, and what they cost.
        training: What became of each chosen run.
        rounds: The table of all rounds of all runs.
    """

    reference: str
    ended: Mapping[str, str]
    settings: Sequence[SettingResult]
    prices: Sequence[PriceSweep]
    learning: Sequence[LearningCurve]
    training: Sequence[EndOfTraining]
    rounds: pa.Table

    @property
    def record(self) -> dict[str, object]:
        """results.json: all but the table of rounds."""
        lists = ("settings", "prices", "learning", "training")
        return {
            "reference": self.reference,
            "ended": dict(self.ended),
            **{name: [json_of(one) for one in getattr(self, name)] for name in lists},
        }

    def charts(self, setting: str) -> list[Points]:
        """Learning per cost, then the prices."""
        sweep = next(one for one in self.prices if one.setting == setting)
        return [*learning_charts(sweep, self.learning), price_chart(sweep)]

    def write(self, folder: Path, page: str) -> None:
        """The table, results.json, the pictures, and the page that shows them; those of settings that are gone go."""
        write_table_anew(folder / ROUNDS, self.rounds, told_by=folder / RESULTS, all_columns=True)
        write_json(folder / RESULTS, self.record)
        (folder / PICTURES).mkdir(exist_ok=True)
        pictures = {folder / picture_of(chart): chart for sweep in self.prices for chart in self.charts(sweep.setting)}
        for path, chart in pictures.items():
            write_bytes(path, figures.svg(chart, standalone=True).encode())
        write_bytes(folder / REPORT, page.encode())
        for path in (folder / PICTURES).glob("*.svg"):
            if path not in pictures and is_picture(path.stem):
                path.unlink()


def picture_of(chart: Points) -> str:
    """Its file, from the experiment's folder."""
    return f"{PICTURES}/{chart.name}.svg"


def findings_of(workshop: Workshop, ended: Mapping[str, str]) -> Findings:
    """Choose prices, test what was chosen, and look at all rounds. All runs are trained.

    Raises:
        VpgeaError: What an evaluation raises, or a round's records are damaged.
    """
    runs = workshop.experiment.runs
    lines = {run.name: workshop.lines_of(run) for run in runs}
    trained = {run.name: read_rounds(workshop.folder_of(run), lines[run.name]) for run in runs}
    prices = sweep_prices(runs, lines)
    chosen = chosen_of(prices)
    return Findings(
        reference=workshop.experiment.reference,
        ended=ended,
        settings=results_of(workshop, lines, chosen),
        prices=prices,
        learning=learning_curves(runs, lines, chosen),
        training=ends_of_training(runs, lines, trained, chosen),
        rounds=rounds_table(runs, lines, trained, chosen),
    )
