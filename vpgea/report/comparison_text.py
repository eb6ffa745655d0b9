"""A comparison as text: tables for people, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vpgea.report.text import with_interval

if TYPE_CHECKING:
    from vpgea.metrics.bootstrap import Estimate
    from vpgea.phases.compare import Comparison, Pair, SetComparison

Cells = tuple[str, ...]
FORMATS = ("text", "csv", "markdown", "latex")
_SHOWN = ("accuracy", "accuracy_finished", "tokens", "tokens_median", "tokens_p95", "tokens_correct", "truncation_rate")
HEAD = ("set", "run", "accuracy", "tokens", "accuracy gain", "p (Holm)", "tokens change", "p (Holm)")
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}


def as_text(comparison: Comparison, form: str) -> str:
    """The whole as csv (a line per figure), or its main table as markdown or latex."""
    if form == "csv":
        return _csv(comparison)
    rows = list(main_rows(comparison))
    if form == "markdown":
        return "\n".join(markdown(HEAD, rows))
    written = [" & ".join(map(_latex, row)) + r" \\" for row in (HEAD, *rows)]
    columns = "l" * len(HEAD)
    body = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\hline",
        written[0],
        r"\hline",
        *written[1:],
        r"\hline",
        r"\end{tabular}",
    ]
    return "\n".join(body)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table, line by line."""
    lines = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]


def main_rows(comparison: Comparison) -> Iterator[Cells]:
    """One line for each run on each set, the base first."""
    for one in comparison.sets:
        pairs: list[Pair | None] = [None, *one.pairs]
        for run, pair in zip(one.runs, pairs, strict=True):
            start = (one.name, run.name, interval(run.metrics["accuracy"]), interval(run.metrics["tokens"], digits=0))
            if pair is None:
                yield (*start, "", "", "", "")
            else:
                gained, changed = interval(pair.accuracy.estimate), interval(pair.tokens.estimate)
                yield (*start, gained, p_text(pair.accuracy_p_holm), changed, p_text(pair.tokens_p_holm))


def figure_rows(one: SetComparison) -> list[Cells]:
    """Every figure of a set, a column for each run."""
    names = list(dict.fromkeys(name for run in one.runs for name in run.metrics))
    ordered = [*(name for name in _SHOWN if name in names), *(name for name in names if name not in _SHOWN)]
    rows = [(name, *(_figure(run.metrics.get(name), name) for run in one.runs)) for name in ordered]
    return [*rows, ("not graded", *(f"{run.not_graded:,} of {run.samples:,}" for run in one.runs))]


def change_rows(pair: Pair, most: int) -> list[Cells]:
    """The questions that changed most."""
    return [
        (
            one.question_id,
            f"{one.accuracy[0]:.2f} -> {one.accuracy[1]:.2f}",
            " -> ".join("-" if math.isnan(tokens) else f"{tokens:,.0f}" for tokens in one.tokens),
        )
        for one in pair.questions[:most]
    ]


def bin_rows(one: SetComparison) -> list[Cells]:
    """Accuracy and tokens of every run by how hard the questions are for the base."""
    return [
        (
            each.name,
            f"{each.questions:,}",
            *(f"{interval(accuracy)}, {interval(tokens, digits=0)}" for accuracy, tokens in each.runs),
        )
        for each in one.difficulty
    ]


def flip_text(pair: Pair) -> str:
    """`right -> wrong 3.1 %, wrong -> right 5.0 %`, and what was paired."""
    found = pair.flips
    how = "samples of the same seed" if found.by_sample else "all samples of a question: the seeds differ"
    return f"right -> wrong {found.right_to_wrong:.1%}, wrong -> right {found.wrong_to_right:.1%} ({how})"


def interval(found: Estimate, *, digits: int = 3) -> str:
    return with_interval(found.value, found.low, found.high, digits=digits)


def _figure(found: Estimate | None, name: str) -> str:
    if found is None:
        return ""
    return interval(found, digits=0 if "tokens" in name else 6 if name == "token_efficiency" else 3)


def p_text(value: float | None) -> str:
    """A p value; below 0.001 only that."""
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _csv(comparison: Comparison) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("set", "run", "figure", "value", "low", "high", "n", "p", "p_holm"))
    for one in comparison.sets:
        for run in one.runs:
            for name, found in run.metrics.items():
                writer.writerow((one.name, run.name, name, *_numbers(found), "", ""))
        for pair in one.pairs:
            for name, gain, holm in (
                ("paired_accuracy_gain", pair.accuracy, pair.accuracy_p_holm),
                ("paired_tokens_change", pair.tokens, pair.tokens_p_holm),
            ):
                p_values = ("" if p is None else p for p in (gain.p, holm))
                writer.writerow((one.name, pair.run, name, *_numbers(gain.estimate), *p_values))
    return text.getvalue().rstrip("\n")


def _numbers(found: Estimate) -> Sequence[object]:
    return ["" if one is None else one for one in (found.value, found.low, found.high, found.n)]


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
