"""The sections about evaluations: figures, accuracy against tokens, budgets, what flipped, difficulty."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from vpgea.metrics.bootstrap import Estimate
from vpgea.metrics.curves import BUDGET_RULE
from vpgea.phases.compare import Comparison, Pair, QuestionChange, SetComparison
from vpgea.report.comparison_text import HEAD, bin_rows, change_rows, figure_rows, flip_text, main_rows
from vpgea.report.model import Block, Hollow, Point, Points, Section, Series, Table, Words
from vpgea.report.published import PublishedFigure, published_table

_CHANGES = 20  # questions shown of a pair; the downloads have all


def comparison_sections(found: Comparison, published: Mapping[str, Sequence[PublishedFigure]]) -> list[Section]:
    """What each shows stands in docs/report.md. published: by sets, what others have found."""
    sections = [
        Section("figures", "Figures", list(_figures(found))),
        Section("tokens", "Accuracy and tokens", list(_tokens(found, published))),
        Section("budget", "Budget of tokens", list(_budgets(found))),
        Section("pairs", "Question by question", list(_paired(found))),
        Section("difficulty", "By difficulty", [_difficulty(one) for one in found.sets if one.difficulty]),
    ]
    return [section for section in sections if section.blocks]


def verdicts(found: Comparison) -> list[str]:
    """In words: of all, then of each pair, where there are several."""
    pairs = [(one.name, pair) for one in found.sets for pair in one.pairs]
    if not pairs:
        return ["one evaluation: nothing was compared"]
    if len(pairs) == 1:
        return [found.verdict]
    return [found.verdict, *(f"{f'{name}, ' if name else ''}{pair.run}: {pair.verdict}" for name, pair in pairs)]


def title_of(one: SetComparison, text: str) -> str:
    return f"{one.name}: {text}" if one.name else text


def name_of(one: SetComparison, text: str) -> str:
    """Of a figure's file."""
    return f"{one.name}-{text}" if one.name else text


def bounds_of(found: Estimate) -> tuple[float, float] | None:
    return None if found.low is None or found.high is None else (found.low, found.high)


def _figures(found: Comparison) -> Iterator[Block]:
    named = int(not any(one.name for one in found.sets))  # one alone has no name to show
    yield Table(
        title="every run on every set, the base first",
        head=HEAD[named:],
        rows=[row[named:] for row in main_rows(found)],
        note="95 % intervals by a bootstrap over questions; p values are Holm's, of all pairs on all sets together",
    )
    for one in found.sets:
        rows = figure_rows(one)
        warned = {
            f"{run.name}: {warning}"
            for run in one.runs
            for warning in (metric.warning for metric in run.metrics.values())
            if warning
        }
        yield Table(
            title=title_of(one, f"every figure, {one.questions:,} questions"),
            head=("", *(run.name for run in one.runs)),
            rows=rows,
            note="; ".join(sorted(warned)),
        )
    for name in found.left_out:
        yield Words(f"set {name} is not in all runs, and is left out")


def _tokens(found: Comparison, published: Mapping[str, Sequence[PublishedFigure]]) -> Iterator[Block]:
    for one in found.sets:
        figures = published[one.name]
        yield _frontier(one, figures)
        if figures:
            yield published_table(title_of(one, "what others have published"), figures)


def _frontier(one: SetComparison, published: Sequence[PublishedFigure]) -> Points:
    names, series = [run.name for run in one.runs], []
    for run in one.runs:
        accuracy, tokens = run.metrics["accuracy"], run.metrics["tokens"]
        points = []
        if accuracy.value is not None and tokens.value is not None:
            label = f"{accuracy.value:.3f} at {tokens.value:,.0f} tokens"
            points = [
                Point(
                    x=tokens.value,
                    y=accuracy.value,
                    x_bounds=bounds_of(tokens),
                    y_bounds=bounds_of(accuracy),
                    label=label,
                )
            ]
        series.append(Series(run.name, points))
    return Points(
        name=name_of(one, "accuracy-tokens"),
        title=title_of(one, "accuracy against mean tokens"),
        x_label="mean completion tokens",
        y_label="accuracy",
        series=series,
        percent_y=True,
        level=one.runs[0].metrics["accuracy"].value,
        hollow=[
            Hollow(
                y=each.stated.value,
                series=names.index(each.run),
                kind=each.kind,
                label=f"{each.stated.who}: {each.stated.value:.3f}, {each.stated.source}",
            )
            for each in published
        ],
        note="crosses: 95 % intervals; dashed: the base's accuracy. Up and to the left is better."
        + (" Hollow, on the axis: what others have published, without tokens." if published else ""),
    )


def _budgets(found: Comparison) -> Iterator[Block]:
    for one in found.sets:
        series = [
            Series(
                run.name,
                [
                    Point(
                        x=point.budget,
                        y=point.accuracy.value,
                        y_bounds=bounds_of(point.accuracy),
                        label=f"{point.budget:,} tokens: {point.accuracy.value:.3f}",
                    )
                    for point in run.budget_curve
                    if point.accuracy.value is not None
                ],
            )
            for run in one.runs
        ]
        if any(each.points for each in series):
            yield Points(
                name=name_of(one, "budget"),
                title=title_of(one, "accuracy if every response were cut"),
                x_label="budget of tokens",
                y_label="accuracy",
                series=series,
                joined=True,
                log_x=True,
                percent_y=True,
                note=f"{BUDGET_RULE}; bands: 95 % intervals",
            )


def _paired(found: Comparison) -> Iterator[Block]:
    for one in found.sets:
        for pair in one.pairs:
            yield from _pair(one, pair)


def _pair(one: SetComparison, pair: Pair) -> Iterator[Block]:
    flips, base = pair.flips, one.runs[0].name
    cells = [[flips.both_right, flips.right_to_wrong], [flips.wrong_to_right, flips.both_wrong]]
    shares = [["-" if math.isnan(share) else f"{share:.1%}" for share in row] for row in cells]
    yield Table(
        title=title_of(one, f"{pair.run}: flips"),
        head=(f"{base}, then the run", "right after", "wrong after"),
        rows=[("right before", *shares[0]), ("wrong before", *shares[1])],
        note=flip_text(pair),
    )
    points = [
        _of_question(change) for change in pair.questions if change.tokens[0] > 0 and not math.isnan(change.tokens[1])
    ]
    if points:
        yield Points(
            name=name_of(one, f"questions-{_place(one, pair)}"),
            title=title_of(one, f"{pair.run}: tokens of each question against the base"),
            x_label="share of the base's samples that are right",
            y_label="tokens after / before",
            series=[Series(pair.run, points)],
            level=1.0,
            note="one point per question; below the dashed line it is answered with fewer tokens",
        )
    shown = change_rows(pair, _CHANGES)
    yield Table(
        title=title_of(one, f"{pair.run}: questions that changed most, {len(shown)} of {len(pair.questions):,}"),
        head=("question", "accuracy", "tokens"),
        rows=shown,
        note="the JSON below has all",
        closed=True,
    )
    if pair.alone:
        yield Words(f"{pair.alone} questions are in one of {base} and {pair.run} only; not paired")


def _of_question(change: QuestionChange) -> Point:
    (right, right_after), (before, after) = change.accuracy, change.tokens
    label = f"{change.question_id}: {right:.2f} -> {right_after:.2f}, {before:,.0f} -> {after:,.0f} tokens"
    return Point(x=right, y=after / before, label=label)


def _place(one: SetComparison, pair: Pair) -> int:
    return 1 + [each.run for each in one.pairs].index(pair.run)


def _difficulty(one: SetComparison) -> Table:
    return Table(
        title=title_of(one, "accuracy, tokens by how hard a question is for the base"),
        head=("base", "questions", *(run.name for run in one.runs)),
        rows=bin_rows(one),
        note="bins by half of the base's samples, figures by the other half: the same samples would show losses among "
        "the easy questions that are only luck running out",
    )
