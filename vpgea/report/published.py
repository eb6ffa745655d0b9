"""What others have published of a run's model on its benchmark, to stand beside what was measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vpgea.protocols.card import ProtocolCard
from vpgea.protocols.published import UNATTRIBUTED, PublishedModel, Stated, published, unattributed
from vpgea.report.cards import cards_of
from vpgea.report.model import Table
from vpgea.report.sources import Sources

SAME, OTHER = "published, same protocol", "published, other protocol"


@dataclass(frozen=True)
class PublishedFigure:
    """One figure of one evaluator. run: whose model it is, or may be, of; kind: SAME or OTHER than that run's, or
    UNATTRIBUTED."""

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
            if card.known_model is not None:
                runs.setdefault(card.known_model, (run, card))  # the first of each model
        stated = [one for model in published().models for one in _of_model(model, runs)]
        found[name] = [*stated, *_unattributed(runs)]
    return found


def _unattributed(runs: Mapping[str, tuple[str, ProtocolCard]]) -> list[PublishedFigure]:
    """Each once, though runs of several of its models are shown."""
    found: dict[tuple[str, float], PublishedFigure] = {}
    for model, (run, card) in runs.items():
        for one, value in unattributed(model, card.benchmark):
            stated = Stated(benchmark=card.benchmark, value=value, who=one.who, source=one.source)
            figure = PublishedFigure(run, f"one of {', '.join(one.models)}", stated, UNATTRIBUTED)
            found.setdefault((one.source, value), figure)
    return list(found.values())


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
    is_any_unknown = any(one.kind == UNATTRIBUTED for one in figures)
    return Table(
        title=title,
        head=("who", "accuracy", "model", "protocol", "source"),
        rows=[(one.stated.who, f"{one.stated.value:.3f}", one.model, one.kind, one.stated.source) for one in figures],
        note=f"read {published().read}; figures of one evaluator each, whose tokens and intervals are not published. "
        "By another protocol one may differ by several points for the same weights"
        + (
            "; of those whose model is not stated the value alone is known, and is no verdict" if is_any_unknown else ""
        ),
    )
