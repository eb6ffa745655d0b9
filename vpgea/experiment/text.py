"""An experiment's results as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from vpgea.experiment.grid import Experiment
from vpgea.experiment.results import ObjectiveResult, SettingResult
from vpgea.metrics.bootstrap import Estimate
from vpgea.report.comparison_text import interval, markdown, p_text
from vpgea.report.text import with_interval

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
AGAINST = ("objective", "accuracy, points", "p (Holm)", "tokens", "p (Holm)", "ε³ against it", "p (Holm)", "said")


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
        if one.without_round:
            lines += ["", f"Without a finished round, and counted as the base: {', '.join(one.without_round)}."]
    return "\n".join(lines) + "\n"


def figure_rows(one: SettingResult) -> list[tuple[str, ...]]:
    """Cells under HEAD, the base model first."""
    base = (
        "base",
        "",
        "",
        "",
        "",
        _interval(one.base.get("accuracy")),
        "",
        _interval(one.base.get("tokens"), 1),
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
        interval(metrics["accuracy"]),
        _hundredfold(metrics["accuracy_gain"]),
        interval(metrics["tokens"], digits=1),
        _hundredfold(metrics["token_saving"], " %"),
        interval(metrics["e3"], digits=2),
        ", ".join("-" if value is None else f"{value:.2f}" for value in result.e3_of_seeds),
    )


def against_rows(one: SettingResult) -> list[tuple[str, ...]]:
    """Cells under AGAINST, of every objective but the reference."""
    return [
        (
            result.objective,
            _hundredfold(against.accuracy.estimate),
            p_text(against.accuracy_p_holm),
            _hundredfold(against.tokens.estimate, " %"),
            p_text(against.tokens_p_holm),
            interval(against.e3, digits=2),
            p_text(against.e3_p_holm),
            against.verdict,
        )
        for result in one.objectives
        if (against := result.against) is not None
    ]


def _interval(found: Estimate | None, digits: int = 3) -> str:
    return "-" if found is None else interval(found, digits=digits)


def _hundredfold(found: Estimate, unit: str = "") -> str:
    """Of a share, in points or per cent."""
    shares = (found.value, found.low, found.high)
    return with_interval(*(None if share is None else 100 * share for share in shares), digits=1, unit=unit)
