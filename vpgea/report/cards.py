"""What a protocol's card says: how a benchmark was asked, sampled, read and graded, and by whom it is so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vpgea.protocols.asking import Rows
from vpgea.protocols.card import ProtocolCard
from vpgea.report.model import Block, Cells, Prompt, Table, Words
from vpgea.report.sources import Sources
from vpgea.runs.layout import PROTOCOL
from vpgea.storage.records import read_record


def cards_of(sources: Sources, name: str) -> dict[str, ProtocolCard]:
    """Run → its card, of the runs of one set that have one: those that `vpgea eval --benchmark` sampled."""
    paths = {run: sets[name].root / PROTOCOL for run, sets in sources.evaluations.items()}
    return {run: read_record(path, ProtocolCard) for run, path in paths.items() if path.is_file()}


def card_blocks(start: str, cards: Mapping[str, ProtocolCard]) -> Iterator[Block]:
    """Of one set, whose runs have one protocol; none where no run has a card."""
    if not cards:
        return
    card = next(iter(cards.values()))
    title = f"{start}protocol {card.name}, version {card.version}, of {card.benchmark}"
    reproduced = [
        (f"{run} beside {one.model}", f"{one.low:.2f} to {one.high:.2f} of {one.evaluators}: {one.verdict}; {one.why}")
        for run, one in ((run, each.reproduction) for run, each in cards.items())
        if one is not None
    ]
    regraded = [(f"{run} was graded again", each.regraded) for run, each in cards.items() if each.regraded]
    yield Table(title=title, head=("", "what it says"), rows=[*_rules(card), *regraded, *reproduced])
    yield _settings(start, cards)
    shown = card.shown
    yield Prompt(title=f"{start}its prompt, before a question is put into it", text=card.prompt, tokens=())
    yield Prompt(
        title=f"{start}after: the user's turn of question {shown.question_id}", text=shown.user_turn, tokens=()
    )
    if shown.training_turn:
        asked = f"{start}what the template of the training would ask in its place"
        yield Prompt(title=asked, text=shown.training_turn, tokens=())
    else:
        yield Words(f"{start}the template of the training would ask the same")


def _rules(card: ProtocolCard) -> Iterator[Cells]:
    """Everything that is the same for all runs by the protocol."""
    yield "system text", "none is sent: the chat template may write its own" if card.system is None else card.system
    if card.choice is not None:
        yield "a choice is written", card.choice
        yield "order of the choices", card.order
    yield "rows", _rows(card.rows)
    if card.example_rows is not None:
        yield "examples before the question", f"{card.examples}: {_rows(card.example_rows)}"
    yield "an answer that is missing", f"counts as {card.missing}"
    if card.guess is not None:
        yield "beside it, accuracy_guessed", f"guesses what is missing as the script of {card.guess} does"
    yield "a sample without a grade", card.ungraded
    yield "aggregation", card.aggregation
    for one in card.differs:
        yield "otherwise than at its source", one
    for source in card.sources:
        yield "source", f"{source.what}, read {source.read}"


def _rows(rows: Rows) -> str:
    revision = f", revision {rows.revision}" if rows.revision else ""
    return f"{rows.count:,} of {rows.source}{revision}, SHA-256 {rows.sha256}"


def _settings(start: str, cards: Mapping[str, ProtocolCard]) -> Table:
    """Sampling and grader; the rows in which a run deviates are marked."""
    card = next(iter(cards.values()))
    used = [{one.key: str(one.used) for one in each.settings} for each in cards.values()]
    rows = [(one.key, str(one.protocol), *(each.get(one.key, "-") for each in used)) for one in card.settings]
    deviating = frozenset(place for place, (_, said, *found) in enumerate(rows) if set(found) != {said})
    return Table(
        title=f"{start}sampling and reading: the protocol's settings beside those used",
        head=("", "protocol", *cards),
        rows=[*rows, ("figure", "", *(each.figure for each in cards.values()))],
        marked=deviating,
        note=f"{len(deviating)} are not the protocol's, and are marked" if deviating else "all are the protocol's",
    )
