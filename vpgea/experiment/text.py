"""An experiment's results as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from vpgea.experiment.grid import Experiment
from vpgea.experiment.results import ObjectiveResult, SettingResult
from vpgea.metrics.bootstrap import Estimate

HEAD = (
    "objective",
    "λ",
    "seeds",
    "sampled tokens",
    "rounds",
    "accuracy",
    "gain, points",
    "tokens",
    "saved",
    "ε³",
    "ε³ of seeds",
)
AGAINST = ("objective", "accuracy, points", "p (Holm)", "tokens", "p (Holm)", "ε³ against it", "said")


def page(experiment: Experiment, found: Sequence[SettingResult]) -> str:
    """The whole: how it was made, and a table of figures and one of comparisons for each setting."""
    lines = [
        f"# {experiment.file.name}",
        "",
        "Each objective has the price of length λ whose runs have the highest mean ε³ on the held-out questions. "
        "Figures are those of the last weights on the test questions, of all seeds together, against the base model "
        "under the same seeds; intervals are 95 %, over questions. A seed changes the samples, the order of training "
        "and the evaluation. p values are adjusted for all comparisons here.",
    ]
    for one in found:
        title = f"{one.name}: " if one.name else ""
        lines += ["", f"## {title}{one.questions:,} test questions", "", *markdown(HEAD, figure_rows(one))]
        if any(result.against for result in one.objectives):
            lines += ["", f"Against {experiment.reference}:", "", *markdown(AGAINST, against_rows(one))]
        if one.left_out:
            lines += ["", f"Left out, without a finished round: {', '.join(one.left_out)}."]
    return "\n".join(lines) + "\n"


def figure_rows(one: SettingResult) -> list[tuple[str, ...]]:
    """Cells under HEAD, the base model first."""
    base = (
        "base",
        "",
        "",
        "",
        "",
        _figure(one.base.get("accuracy")),
        "",
        _figure(one.base.get("tokens"), 1),
        "",
        "",
        "",
    )
    return [base, *(_figures(result) for result in one.objectives)]


def _figures(result: ObjectiveResult) -> tuple[str, ...]:
    metrics = result.metrics
    return (
        result.objective,
        "" if result.price is None else f"{result.price:g}",
        ", ".join(map(str, result.seeds)),
        "-" if result.sampled_tokens is None else f"{result.sampled_tokens:,.0f}",
        f"{result.rounds:g}",
        _figure(metrics["accuracy"]),
        _figure(metrics["accuracy_gain"], 1, 100),
        _figure(metrics["tokens"], 1),
        _figure(metrics["token_saving"], 1, 100, " %"),
        _figure(metrics["e3"], 2),
        ", ".join("-" if value is None else f"{value:.2f}" for value in result.e3_of_seeds),
    )


def against_rows(one: SettingResult) -> list[tuple[str, ...]]:
    """Cells under AGAINST, of every objective but the reference."""
    return [
        (
            result.objective,
            _figure(against.accuracy.estimate, 1, 100),
            _p(against.accuracy_p_holm),
            _figure(against.tokens.estimate, 1, 100, " %"),
            _p(against.tokens_p_holm),
            _figure(against.e3, 2),
            against.verdict,
        )
        for result in one.objectives
        if (against := result.against) is not None
    ]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table, line by line."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]


def _figure(found: Estimate | None, digits: int = 3, times: float = 1, unit: str = "") -> str:
    if found is None or found.value is None:
        return "-"
    text = f"{times * found.value:.{digits}f}{unit}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{times * found.low:.{digits}f}, {times * found.high:.{digits}f}]"


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
