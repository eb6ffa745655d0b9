"""What others have published of a run's model on its benchmark, to stand beside what was measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vpgea.protocols.card import ProtocolCard
from vpgea.protocols.published import PublishedModel, Stated, published
from vpgea.report.cards import cards_of
from vpgea.report.model import Table
from vpgea.report.sources import Sources

SAME, OTHER = "published, same protocol", "published, other protocol"


@dataclass(frozen=True)
class PublishedFigure:
    """One figure of one evaluator. run: whose model it is of; kind: SAME or OTHER than that run's."""

    run: str
    model: str
    stated: Stated
    kind: str


def published_figures(sources: Sources) -> dict[str, list[PublishedFigure]]:
    """Set → figures of the models that its runs are of: known ones, which a card names where it could prove them."""
    found: dict[str, list[PublishedFigure]] = {}
    for name in sources.sets:
        runs: dict[str, tuple[str, ProtocolCard]] = {}
        for run, card in cards_of(sources, name).items():
            if card.reproduction is not None:
                runs.setdefault(card.reproduction.model, (run, card))  # the first of each model
        found[name] = [one for model in published().models for one in _of_model(model, runs)]
    return found


def _of_model(model: PublishedModel, runs: Mapping[str, tuple[str, ProtocolCard]]) -> list[PublishedFigure]:
    if model.name not in runs:
        return []
    run, card = runs[model.name]
    rows = next((band.rows for band in model.figures if band.benchmark == card.benchmark), None)
    is_whole = card.rows.count == rows
    # a number of samples is no other way of asking
    is_kept = all(one.used == one.protocol for one in card.settings if one.key != "eval.samples")
    return [
        PublishedFigure(run, model.name, one, SAME if one.protocol == card.name and is_whole and is_kept else OTHER)
        for one in model.stated
        if one.benchmark == card.benchmark
    ]


def published_table(title: str, figures: Sequence[PublishedFigure]) -> Table:
    """Who, what, by which protocol as seen from the run, and where it stands."""
    return Table(
        title=title,
        head=("who", "accuracy", "model", "protocol", "source"),
        rows=[(one.stated.who, f"{one.stated.value:.3f}", one.model, one.kind, one.stated.source) for one in figures],
        note=f"read {published().read}; figures of one evaluator each, whose tokens and intervals are not published. "
        "By another protocol one may differ by several points for the same weights",
    )
