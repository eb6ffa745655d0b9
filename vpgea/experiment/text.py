"""An experiment's results as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vpgea.experiment.ends import Change, EndOfTraining
from vpgea.experiment.findings import Findings, picture_of
from vpgea.experiment.prices import PriceSweep
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
_SAID = "said of other questions"  # not of other seeds
AGAINST = ("objective", "accuracy, points", "p (Holm)", "tokens", "p (Holm)", "ε³ against it", "p (Holm)", _SAID)
KEPT = ("objective", "test questions", "accuracy against the base, points", "p (Holm)", _SAID)
_OF_QUESTIONS = (
    "Higher, lower, more, fewer, better and worse are said of other questions, by these same seeds: intervals are over "
    "questions. Of other seeds nothing is said; how far these differ, the column ε³ of seeds shows."
)
PRICES = ("objective", "λ", "seeds", "accuracy", "tokens", "ε³", "chosen", "efficient")
_ENDS = (
    *("objective", "seed", "rounds", "entropy, nats", "KL, nats", "ESS / K", "reflection", "k", "mean@k", "pass@k"),
    *("best round", "ε³ there", "ε³ at the end", "rounds with accuracy below the base", "course"),
)


def page(title: str, found: Findings) -> str:
    """The whole: how it was made, and of each setting its tests, pictures, prices and runs."""
    lines = [
        f"# {title}",
        "",
        "Each objective has the price of length λ whose runs have the highest mean ε³ on the held-out questions. "
        "Figures are those of the last weights on the test questions, of all seeds together, against the base model "
        "under the same seeds; intervals are 95 %, over questions. A seed changes the samples, the order of training "
        "and the evaluation. p values are adjusted for all comparisons here. Intervals and p values say what other "
        "questions would change, of these very weights; what another training would, the ε³ of the seeds shows. ε³ "
        "depends on its base: two that are equal against the base model need not be so against one another.",
    ]
    for sweep in found.prices:
        tests = [one for one in found.settings if one.name == sweep.setting]
        for one in tests:
            lines += tables_of(one, found.reference)
        lines += forgetting_of(sweep.setting, tests)
        lines += _learning(sweep, found)
        lines += _training(sweep.setting, [one for one in found.training if one.setting == sweep.setting])
    return "\n".join(lines) + "\n"


def title_of(one: SettingResult) -> str:
    """Which test of which setting."""
    return f"{_start(one.name, one.test)}{one.questions:,} test questions"


def _start(*names: str) -> str:
    named = ", ".join(filter(None, names))
    return f"{named}: " if named else ""


def tables_of(one: SettingResult, reference: str) -> Iterator[str]:
    """A table of figures and one of comparisons."""
    yield from ("", f"## {title_of(one)}", "", *markdown(HEAD, figure_rows(one)))
    if any(result.against for result in one.objectives):
        yield from ("", f"Against {reference}:", "", *markdown(AGAINST, against_rows(one)))
        yield from ("", _OF_QUESTIONS)
    if one.without_round:
        yield from ("", f"Without a finished round, and counted as the base: {', '.join(one.without_round)}.")


def forgetting_of(setting: str, tests: Sequence[SettingResult]) -> Iterator[str]:
    """What was gained and lost on each test; nothing where there is but one."""
    if rows := kept_rows(tests):
        yield from ("", f"## {_start(setting)}kept and forgotten", "", *markdown(KEPT, rows))
        yield from ("", f"Lower on questions of a family that was not trained on is forgetting. {_OF_QUESTIONS}")


def _learning(sweep: PriceSweep, found: Findings) -> Iterator[str]:
    *learning, prices = found.charts(sweep.setting)
    yield from ("", f"## {_start(sweep.setting)}learning per cost, on the held-out questions", "")
    yield (
        "Each objective at its λ; a mark is a measured round, the mean over its seeds of cost and figure, a thin line "
        "a seed; dashed: the base. Costs are sums up to the end of a round."
    )
    for chart in learning:
        yield from ("", f"![{chart.title}]({picture_of(chart)})")
    yield from ("", f"## {_start(sweep.setting)}prices of length, on the held-out questions", "")
    yield f"![{prices.title}]({picture_of(prices)})"
    yield (
        "\nA mark is a price, * the chosen one, at the last measured rounds of its runs, mean over seeds; thin lines: "
        "seeds."
    )
    yield from ("", *markdown(PRICES, price_rows(sweep)))
    yield from ("", "Efficient (Pareto): no other row is as accurate with fewer tokens, or better with as few.")


def price_rows(sweep: PriceSweep) -> list[tuple[str, ...]]:
    """Cells under PRICES, the base model first."""
    base = sweep.base
    rows: list[tuple[str, ...]] = []
    if base is not None:
        rows.append(("base", "", "", f"{base.accuracy:.3f}", f"{base.tokens:.1f}", "1.00", "", ""))
    for one in sweep.prices:
        missing = f", {one.unmeasured} never measured" if one.unmeasured else ""
        figures = ("-" if one.accuracy is None else f"{one.accuracy:.3f}", _number(one.tokens, ".1f"), f"{one.e3:.2f}")
        marks = ("yes" if is_so else "" for is_so in (one.is_chosen, one.is_efficient))
        rows.append((one.objective, _price(one.price), f"{len(one.seeds)}{missing}", *figures, *marks))
    return rows


def _training(setting: str, ends: Sequence[EndOfTraining]) -> Iterator[str]:
    yield from ("", f"## {_start(setting)}end of training", "", *markdown(_ENDS, [_end_row(one) for one in ends]))
    yield ""
    yield (
        "First round → last round. mean@k and pass@k are of the k prior samples of a training question, each round's "
        "on its own questions, by the model as it came to the round; reflection: words of it per 1,000 tokens of the "
        "prior's paths. Accuracy is below the base where the interval of the difference is. Course: below the base, "
        "the best round is; rising, it is not, and is the last that was measured and better than the base; collapse, "
        "it is not, and the last is; plateau, neither is. These intervals are each by itself, not adjusted: of many "
        "rounds and runs some fall below by chance."
    )


def _end_row(one: EndOfTraining) -> tuple[str, ...]:
    return (
        one.objective,
        str(one.seed),
        _rounds(one),
        *(_change(change, ".3g") for change in (one.entropy, one.kl, one.ess_share, one.epistemic)),
        _number(one.k, "d"),
        *(_change(change, ".3f") for change in (one.mean_at_k, one.pass_at_k)),
        _number(one.best_round, "d"),
        *(_number(e3, ".2f") for e3 in (one.best_e3, one.last_e3)),
        ", ".join(map(str, one.below_base)) or "none",
        one.verdict,
    )


def _rounds(one: EndOfTraining) -> str:
    """How many, and which was measured last where that is not the last of them."""
    if one.last_round is None or one.last_round == one.rounds - 1:
        return str(one.rounds)
    return f"{one.rounds}, measured up to {one.last_round}"


def _change(found: Change, form: str) -> str:
    if found.before is None:
        return "-"
    return f"{_number(found.before, form)} → {_number(found.after, form)}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _price(price: float | None) -> str:
    return "" if price is None else f"{price:g}"


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
        _price(result.price),
        ", ".join(map(str, result.seeds)),
        "-" if result.sampled_tokens is None else f"{result.sampled_tokens:,.0f}",
        "-" if result.rounds is None else f"{result.rounds:g}",
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


def kept_rows(tests: Sequence[SettingResult]) -> list[tuple[str, ...]]:
    """Cells under KEPT, of every objective on every test of one setting; none where there is but one test."""
    if len(tests) < 2:
        return []
    by_objective = zip(*(one.objectives for one in tests), strict=True)
    return [
        (
            result.objective,
            one.test or "test",
            _hundredfold(result.gain.estimate),
            p_text(result.gain_p_holm),
            result.gain_verdict,
        )
        for results in by_objective
        for one, result in zip(tests, results, strict=True)
    ]


def _interval(found: Estimate | None, digits: int = 3) -> str:
    return "-" if found is None else interval(found, digits=digits)


def _hundredfold(found: Estimate, unit: str = "") -> str:
    """Of a share, in points or per cent."""
    shares = (found.value, found.low, found.high)
    return with_interval(*(None if share is None else 100 * share for share in shares), digits=1, unit=unit)
