"""The figures as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from examples.detection.figures import LEAST_RECALL, MOST_LOSS, Figures, Group
from examples.detection.thresholds import Sweep
from vpgea.metrics.estimates import Estimate

Row = Sequence[object]

_LEGEND = f"""\
Paths with the note in sight whose own answer is right. Recall: share of the pseudo-efficient ones that is rejected;
loss: of the sound ones; with 95 % intervals over questions. Goal: recall of at least {LEAST_RECALL:.0%} at a loss of at
most {MOST_LOSS:.0%}; `?` where the intervals hold the other verdict, too, `-` where paths of one kind are missing."""


def markdown(rounds: Sequence[Figures], whole: Figures) -> str:
    """All tables. whole: of all rounds, or the only one."""
    every = [*rounds, whole] if len(rounds) > 1 else rounds
    of = "all rounds" if len(rounds) > 1 else whole.round
    tables = {
        "The goal, by round and family": _goal(every),
        "Recall by round": _decay(every),
        f"The checks, {of}": _checks(whole),
        f"What the checks cost, {of}": _costs(whole),
        f"Rejected, by kind of path, {of}": _kinds(whole),
        f"Recall by question, {of}": _recall(whole),
        f"Loss by question, {of}": _loss(whole),
        f"Other thresholds, {of}": _thresholds(whole),
    }
    return "\n\n".join([_LEGEND, *(f"### {title}\n\n{_table(rows)}" for title, rows in tables.items())])


def _goal(every: Sequence[Figures]) -> Iterator[Row]:
    yield "round", "questions", "pseudo-efficient", "recall", "sound", "loss", "goal"
    for one in every:
        families = one.families if len(one.families) > 1 else {}
        for name, group in {"all": one.whole, **families}.items():
            taken = group.filter
            yield one.round, name, group.pseudo_efficient, taken.recall, group.sound, taken.loss, group.goal


def _decay(every: Sequence[Figures]) -> Iterator[Row]:
    yield "round", "right", "pseudo-efficient", "right but unsound without the note", "filter", *every[0].checks
    for one in every:
        prior = f"{_cell(one.prior_unsound)} of {one.prior_right:,}"
        yield (
            one.round,
            one.right,
            one.whole.pseudo_efficient,
            prior,
            one.whole.filter.recall,
            *one.whole.caught.values(),
        )


def _checks(whole: Figures) -> Iterator[Row]:
    yield (
        *("check", "recall", "loss", "precision", "lucky slips", "not judged"),
        *("caught by it alone", "recall without it", "loss without it"),
    )
    taken = whole.whole.filter
    yield "whole filter", taken.recall, taken.loss, taken.precision, taken.lucky, whole.undecided, "", "", ""
    for name, check in whole.checks.items():
        own, without = check.alone, check.without
        shares = own.recall, own.loss, own.precision, own.lucky, check.not_judged
        yield name, *shares, check.only, without.recall, without.loss


def _costs(whole: Figures) -> Iterator[Row]:
    yield "check", "tokens sampled, at most", "tokens scored, prompts included"
    for name, check in whole.checks.items():
        yield name, check.cost.sampled_at_most, check.cost.scored
    recorded = {"check_tokens": "sampled for the checks", "score_tokens": "scored for them, prompts not included"}
    said = [f"{whole.tokens[key]:,} {text}" for key, text in recorded.items() if key in whole.tokens]
    yield f"recorded: {'; '.join(said)}", "", ""


def _kinds(whole: Figures) -> Iterator[Row]:
    yield "kind", "paths", "filter", *whole.checks
    for name, kind in whole.kinds.items():
        yield name, kind.count, kind.filter, *kind.caught.values()


def _recall(whole: Figures) -> Iterator[Row]:
    yield "questions", "pseudo-efficient", "filter", *whole.checks
    for name, group in _questions(whole).items():
        yield name, group.pseudo_efficient, group.filter.recall, *group.caught.values()


def _loss(whole: Figures) -> Iterator[Row]:
    yield "questions", "sound", "filter", *whole.checks
    for name, group in _questions(whole).items():
        yield name, group.sound, group.filter.loss, *group.lost.values()


def _questions(whole: Figures) -> dict[str, Group]:
    return {**whole.families, **{f"answer {name}": group for name, group in whole.answers.items()}}


def _thresholds(whole: Figures) -> Iterator[Row]:
    yield "check", "threshold", "", "recall", "loss", "area under the curve"
    for name, found in whole.whole.thresholds.items():
        yield from _sweep(name, found)


def _sweep(name: str, found: Sweep) -> Iterator[Row]:
    of = f"{found.area:.4f} of {found.pseudo_efficient:,} and {found.sound:,} measured"
    yield name, f"{found.setting.threshold:g}", "as it is", *_shares(found.setting.recall, found.setting.loss), of
    if (best := found.within_loss) is not None:
        yield name, f"{best.threshold:.4g}", "most recall within the loss", *_shares(best.recall, best.loss), ""
    for point in found.points:
        if point != found.setting:
            yield name, f"{point.threshold:g}", "", *_shares(point.recall, point.loss), ""


def _shares(*values: float) -> list[str]:
    return [f"{100 * value:.1f} %" for value in values]


def _table(rows: Iterator[Row]) -> str:
    head, *body = (f"| {' | '.join(map(_cell, row))} |" for row in rows)
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *body])


def _cell(value: object) -> str:
    if isinstance(value, Estimate):
        if value.value is None:
            return "-"
        bounds = "" if value.low is None or value.high is None else f" [{100 * value.low:.1f}, {100 * value.high:.1f}]"
        return f"{100 * value.value:.1f} %{bounds}"
    return f"{value:,}" if isinstance(value, int) else str(value)
