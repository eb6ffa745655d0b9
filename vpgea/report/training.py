"""The section on a loop's training: what each round kept and why not the rest, its health, its time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from vpgea.report.model import Bars, Block, Cells, Point, Points, Section, Series, Table, Words
from vpgea.report.rounds import Round, read_round
from vpgea.report.sources import LoopRun
from vpgea.report.text import duration, with_interval
from vpgea.runs.clock import ROUND_COLUMNS, columns_of
from vpgea.runs.records import RoundLine, Term

_HEAD = (
    *("round", "accuracy", "tokens", "e3", "accepted", "KL, nats", "ESS / K", "entropy, nats"),
    *("reflection before", "reflection learnt", "mismatch, nats", "price of length", "time"),
)
_MOST_ROWS = 60  # of the open table; longer ones are closed


# name of the chart, what it shows, the unit, and its lines
_LINES: tuple[tuple[str, str, str, Sequence[tuple[str, Callable[[Round], float | None]]]], ...] = (
    ("kl", "KL of the posterior's paths from the prior", "nats per path", [("KL", lambda one: one.line.kl)]),
    (
        "ess",
        "effective sample size of the importance weights",
        "share of K",
        [("ESS / K", lambda one: None if one.bound is None else one.bound.ess_share.value)],
    ),
    ("entropy", "entropy of the policy as training began", "nats per token", [("entropy", lambda one: one.entropy)]),
    (
        "reflection",
        "words of reflection, such as wait, hmm, check, however",
        "per 1,000 tokens",
        [
            ("prior paths", lambda one: one.reflection[0]),
            ("posterior paths that were learnt", lambda one: one.reflection[1]),
        ],
    ),
    (
        "mismatch",
        "log-probabilities, engine against trainer",
        "largest difference, nats",
        [("largest", lambda one: one.line.engine_mismatch)],
    ),
)


def training_section(loop: LoopRun, number: int) -> Section:
    """Of one loop folder; number: its place among those of the report."""
    rounds = [read_round(loop.folder, line) for line in loop.lines if line.round is not None]
    title = f"Training of {loop.folder.name}"
    key = f"training-{number}"
    if not rounds:
        return Section(key, title, [Words("no round is finished yet")])
    return Section(key, title, [*_charts(rounds, loop, key), *_tables(rounds, loop)])


# --- charts ---------------------------------------------------------------------------------------------------------


def _charts(rounds: Sequence[Round], loop: LoopRun, key: str) -> Iterator[Block]:
    measured = [line for line in loop.lines if line.is_measured]
    for name, label, percent in (("accuracy", "held-out accuracy", True), ("tokens", "held-out tokens, mean", False)):
        points = [_point(line, name) for line in measured]
        note = "the base model stands at -1; bands: 95 % intervals"
        yield Points(
            name=f"{key}-{name}",
            title=label,
            x_label="round",
            y_label=label,
            joined=True,
            percent_y=percent,
            series=[Series(str(loop.folder), points)],
            note=note,
        )
    yield _reasons(rounds, key)
    for name, title, unit, series in _LINES:
        yield from _line_chart(f"{key}-{name}", title, unit, rounds, series)
    yield _times(rounds, key)


def _point(line: RoundLine, name: str) -> Point:
    value, low, high = (getattr(line, f"{name}{bound}") for bound in ("", "_low", "_high"))
    return Point(
        x=-1 if line.round is None else line.round,
        y=value,
        y_bounds=None if low is None or high is None else (low, high),
        label=f"{_label(line)}: {value:.4g}",
    )


def _line_chart(
    name: str,
    title: str,
    unit: str,
    rounds: Sequence[Round],
    series: Sequence[tuple[str, Callable[[Round], float | None]]],
) -> Iterator[Block]:
    """Nothing where no round has the figure."""
    found = []
    for label, figure in series:
        values = [(one.index, value) for one in rounds if (value := figure(one)) is not None and math.isfinite(value)]
        found.append(Series(label, [Point(x=x, y=y, label=f"round {x}: {y:.4g}") for x, y in values]))
    if any(one.points for one in found):
        yield Points(name=name, title=title, x_label="round", y_label=unit, series=found, joined=True)


def _reasons(rounds: Sequence[Round], key: str) -> Bars:
    total = Counter[str]()
    for one in rounds:
        total.update(one.reasons)
    stacks = [("accepted", [one.posterior("accepted") for one in rounds])]
    if any(in_part := [one.posterior("in_part") for one in rounds]):
        stacks.append(("learnt in part", in_part))
    stacks += [(reason, [one.reasons.get(reason, 0) for one in rounds]) for reason, _ in total.most_common()]
    return Bars(
        name=f"{key}-reasons",
        title="posterior paths: accepted, and why not",
        x_label="round",
        y_label="paths",
        labels=[str(one.index) for one in rounds],
        stacks=stacks,
        note="a path with several reasons is counted under the first of them",
    )


def _times(rounds: Sequence[Round], key: str) -> Bars:
    columns = [columns_of(one.line.times or {}) for one in rounds]
    return Bars(
        name=f"{key}-time",
        title="where the time went",
        x_label="round",
        y_label="seconds",
        labels=[str(one.index) for one in rounds],
        stacks=[
            (name, [column[name] for column in columns]) for name in ROUND_COLUMNS if any(c[name] for c in columns)
        ],
        note="of all attempts and parts: what ran side by side counts each",
    )


# --- tables ---------------------------------------------------------------------------------------------------------


def _tables(rounds: Sequence[Round], loop: LoopRun) -> Iterator[Block]:
    base = [line for line in loop.lines if line.round is None]
    rows = [_row(Round(line=line)) for line in base]
    rows += [_row(one) for one in rounds]
    yield Table(
        title="every round",
        head=_HEAD,
        rows=rows,
        closed=len(rows) > _MOST_ROWS,
        note="KL: mean over questions and its standard error; ESS: effective sample size of K importance weights; "
        "reflection: words per 1,000 tokens of the prior's paths, and of the posterior's that were learnt",
    )
    names = sorted({reason for one in rounds for reason in one.reasons})
    in_part = ("in part", "tokens learnt", "tokens masked") if any(one.posterior("in_part") for one in rounds) else ()
    yield Table(
        title="rejected posterior paths",
        head=("round", "sampled", "accepted", *in_part, *names),
        rows=[_counts(one, names, is_in_part=bool(in_part)) for one in rounds],
        closed=len(rows) > _MOST_ROWS,
    )


def _row(one: Round) -> Cells:
    line, bound = one.line, one.bound
    return (
        _label(line),
        with_interval(line.accuracy, line.accuracy_low, line.accuracy_high),
        with_interval(line.tokens, line.tokens_low, line.tokens_high, digits=0),
        with_interval(line.e3, line.e3_low, line.e3_high, digits=2),
        "-" if line.accepted_share is None else f"{line.accepted_share:.1%}",
        _term(bound.kl if bound is not None else None),
        _term(bound.ess_share if bound is not None else None),
        *map(_number, (one.entropy, *one.reflection, line.engine_mismatch, line.length_price)),
        "-" if line.seconds is None else duration(line.seconds),
    )


def _label(line: RoundLine) -> str:
    return "base" if line.round is None else str(line.round)


def _counts(one: Round, names: Sequence[str], *, is_in_part: bool) -> Cells:
    if one.filtered is None:
        return (str(one.index), *["-"] * (2 + 3 * is_in_part + len(names)))
    figures = [one.posterior("sampled"), one.posterior("accepted")]
    if is_in_part:
        tokens = one.filtered.tokens
        figures += [one.posterior("in_part"), tokens.get("in_part_learnt", 0), tokens.get("in_part_masked", 0)]
    return (str(one.index), *(f"{n:,}" for n in (*figures, *(one.reasons.get(name, 0) for name in names))))


def _term(term: Term | None) -> str:
    if term is None or term.value is None:
        return "-"
    return f"{term.value:.3f}" + ("" if term.standard_error is None else f" ± {term.standard_error:.3f}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
