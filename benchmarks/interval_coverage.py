"""How often the 95 % intervals of evaluations cover the truth, over questions, samples and accuracy of the base.

Simulated runs: a question's chance of a right answer is a beta variate, the tuned run's odds are higher by a factor;
lengths are lognormal over questions and samples, shorter for right answers. The truth is an integral over questions.
`--textbook` sets them beside what textbooks have for one sample per question: intervals of a share, and of the
difference of two paired shares.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vpgea.metrics.bootstrap import SampleTable, evaluate
from vpgea.metrics.estimates import Estimate, share_of
from vpgea.metrics.resampling import NORMAL
from vpgea.metrics.scores import aes, e3_score
from vpgea.storage.files import json_bytes, write_named

FIGURES = ("accuracy", "tokens", "accuracy_gain", "token_saving", "e3", "aes")
RIGHT, WRONG = 0.85, 1.3  # lengths of right and wrong answers, of the mean of a question
SPREADS = 0.5, 0.4  # of the logarithm of a length, over questions and over samples

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class World:
    """accuracy: mean of the base. concentration: of its beta distribution; small where questions are easy or hopeless.

    gain: how much higher the log-odds of the tuned run are. saving: share of the tokens that it saves.
    """

    accuracy: float
    concentration: float
    gain: float
    saving: float = 0.35

    def chances(self, rng: np.random.Generator, questions: int) -> tuple[FloatArray, FloatArray]:
        """Of a right answer to each question: the tuned run's and the base's."""
        a, b = self.accuracy * self.concentration, (1 - self.accuracy) * self.concentration
        base = np.clip(rng.beta(a, b, questions), 1e-12, 1 - 1e-12)
        return 1 / (1 + np.exp(-np.log(base / (1 - base)) - self.gain)), base

    def truth(self) -> dict[str, float]:
        """Every figure of infinitely many questions and samples."""
        a, a0 = (float(chance.mean()) for chance in self.chances(np.random.default_rng(0), 500_000))
        t, t0 = (1000 * (share * RIGHT + (1 - share) * WRONG) for share in (a, a0))
        t *= 1 - self.saving
        e3 = float(e3_score(a, t, a0, t0, samples=1, base_samples=1))
        values = (a, t, a - a0, 1 - t / t0, e3, float(aes(a, t, a0, t0)))
        return dict(zip(FIGURES, values, strict=True))

    def runs(self, rng: np.random.Generator, questions: int, k: int) -> list[SampleTable]:
        """The tuned run and the base's on the same questions, k samples each."""
        over_questions, over_samples = SPREADS
        length = 1000 * np.exp(rng.normal(0, over_questions, questions) - over_questions**2 / 2)[:, None]
        tables = []
        for chance, share in zip(self.chances(rng, questions), (1 - self.saving, 1.0), strict=True):
            correct = rng.random((questions, k)) < chance[:, None]
            noise = np.exp(rng.normal(0, over_samples, (questions, k)) - over_samples**2 / 2)
            tokens = np.maximum(share * length * noise * np.where(correct, RIGHT, WRONG), 1)
            question = np.repeat(np.arange(questions), k)
            correct, tokens = correct.astype(float).ravel(), tokens.ravel()
            tables.append(
                SampleTable(question=question, correct=correct, tokens=tokens, truncated=np.zeros(question.size))
            )
        return tables


WORLDS = (
    World(0.3, 2, 0.3),
    World(0.55, 2, 0.0),
    World(0.9, 2, 0.3),
    World(0.9, 50, 0.2),
    World(0.97, 1.5, 0.3),
    World(0.97, 50, 0.0),
)


def coverage(world: World, questions: int, k: int, *, repeats: int, draws: int) -> dict[str, float]:
    """Share of the repeats whose interval holds the truth, per figure."""
    truth, hits = world.truth(), dict.fromkeys(FIGURES, 0)
    for repeat in range(repeats):
        run, base = world.runs(np.random.default_rng([repeat, questions, k]), questions, k)
        found = evaluate(run, base, draws=draws, seed=repeat)
        for name in FIGURES:
            low, high = found[name].low, found[name].high
            hits[name] += low is not None and high is not None and low <= truth[name] <= high
    return {name: count / repeats for name, count in hits.items()}


def grown(
    world: World, questions: int, first: int, most: int, width: float, *, repeats: int, draws: int
) -> tuple[float, float, float]:
    """Of accuracies whose samples are doubled until the interval is narrow, as `vpgea eval --until-width` does.

    Returns:
        The share of intervals that hold the truth; the mean error, in mean half widths of an interval; and the mean
        number of samples per question.
    """
    truth, found, counts = float(world.chances(np.random.default_rng(0), 500_000)[1].mean()), list[Estimate](), 0
    for repeat in range(repeats):
        rng = np.random.default_rng([repeat, questions, first])
        chance = world.chances(rng, questions)[1]
        samples, right = first, rng.binomial(first, chance).astype(np.float64)
        while True:
            one = share_of(right, np.full(questions, float(samples)), draws=draws, seed=repeat)
            assert one.low is not None and one.high is not None  # noqa: PT018
            if one.high - one.low <= width or samples >= most:
                break
            more = min(2 * samples, most) - samples
            samples, right = samples + more, right + rng.binomial(more, chance)
        found.append(one)
        counts += samples
    held = np.mean([(one.low or 0) <= truth <= (one.high or 0) for one in found])
    half = np.mean([((one.high or 0) - (one.low or 0)) / 2 for one in found])
    error = np.mean([(one.value or 0) - truth for one in found])
    return float(held), float(error / half), counts / repeats


def wilson(right: int, n: int) -> Interval:
    """Wilson's interval of a share (JASA 1927)."""
    middle, half = right + NORMAL**2 / 2, NORMAL * math.sqrt(right * (n - right) / n + NORMAL**2 / 4)
    return (middle - half) / (n + NORMAL**2), (middle + half) / (n + NORMAL**2)


def agresti_min(table: IntArray) -> Interval:
    """Wald's interval of a gain with half a pair added to each cell (Statistics in Medicine 2005).

    Args:
        table: (2, 2) pairs by whether the base is right, and whether the run is.
    """
    more = table + 0.5
    n, gain = more.sum(), (more[0, 1] - more[1, 0]) / more.sum()
    half = NORMAL * math.sqrt(((more[0, 1] + more[1, 0]) / n - gain**2) / n)
    return gain - half, gain + half


def newcombe(table: IntArray) -> Interval:
    """Wilson's intervals of both shares, joined by the correlation of the pairs (Statistics in Medicine 1998, 10)."""
    n = int(table.sum())
    run_right, base_right = int(table[:, 1].sum()), int(table[1].sum())
    (low, high), (base_low, base_high) = wilson(run_right, n), wilson(base_right, n)
    share, base_share = run_right / n, base_right / n
    product = float(table[1, 1] * table[0, 0] - table[0, 1] * table[1, 0])
    product = max(product - n / 2, 0) if product > 0 else product
    margins = run_right * (n - run_right) * base_right * (n - base_right)
    phi = product / math.sqrt(margins) if margins else 0.0

    def apart(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0))

    gain = share - base_share
    return gain - apart(share - low, base_high - base_share), gain + apart(high - share, base_share - base_low)


def beside_textbooks(world: World, questions: int, *, repeats: int, draws: int) -> dict[str, float]:
    """Share of the repeats whose interval holds the truth, of a run's accuracy and of its gain, by interval."""
    truth, hits = world.truth(), Counter[str]()
    for repeat in range(repeats):
        run, base = world.runs(np.random.default_rng([repeat, questions, 1]), questions, 1)
        right, base_right = (np.asarray(table.correct, np.int64) for table in (run, base))
        pairs = np.bincount(2 * base_right + right, minlength=4).reshape(2, 2)
        found = evaluate(run, base, draws=draws, seed=repeat)
        intervals = {f"{name}: ours": (found[name].low, found[name].high) for name in ("accuracy", "accuracy_gain")}
        intervals |= {"accuracy: Wilson": wilson(int(right.sum()), questions)}
        intervals |= {"accuracy_gain: Agresti-Min": agresti_min(pairs), "accuracy_gain: Newcombe": newcombe(pairs)}
        for name, (low, high) in intervals.items():
            assert low is not None
            assert high is not None
            hits[name] += low <= truth[name.partition(":")[0]] <= high
    return {name: hits[name] / repeats for name in sorted(intervals)}


def _print_textbooks(options: argparse.Namespace) -> None:
    for position, (n, world) in enumerate(itertools.product(options.questions, WORLDS)):
        shares = beside_textbooks(world, n, repeats=options.repeats, draws=options.draws)
        if not position:
            print("| questions | A0, concentration | " + " | ".join(shares) + " |")
            print("|---|---|" + "---|" * len(shares))
        cells = " | ".join(f"{100 * share:.1f}" for share in shares.values())
        print(f"| {n} | {world.accuracy}, {world.concentration:g} | {cells} |", flush=True)


def _print_grown(options: argparse.Namespace) -> None:
    print("| questions | A0, concentration | begun with | until | covered | error / half width | samples |")
    print("|---|---|---|---|---|---|---|")
    for n, world in itertools.product(options.questions, WORLDS):
        for first, width in itertools.product(options.samples, options.until_width):
            shares = grown(world, n, first, 64, width, repeats=options.repeats, draws=options.draws)
            held, error, samples = 100 * shares[0], *shares[1:]
            cells = f"{first} | {width:g} | {held:.1f} | {error:+.2f} | {samples:.1f}"
            print(f"| {n} | {world.accuracy}, {world.concentration:g} | {cells} |", flush=True)


def main() -> None:
    """Print a table, and write it to a file where one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, nargs="+", default=[30, 200, 1000])
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 4, 32])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--until-width", type=float, nargs="+", help="double the samples until intervals are so narrow")
    parser.add_argument("--textbook", action="store_true", help="beside intervals of textbooks, one sample a question")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.textbook:
        _print_textbooks(options)
        return
    if options.until_width:
        _print_grown(options)
        return
    rows = []
    print("| questions | samples | A0, concentration | " + " | ".join(FIGURES) + " |")
    print("|---|---|---|" + "---|" * len(FIGURES))
    for n, k, world in itertools.product(options.questions, options.samples, WORLDS):
        shares = coverage(world, n, k, repeats=options.repeats, draws=options.draws)
        rows.append(
            {"questions": n, "samples": k, "base": world.accuracy, "concentration": world.concentration} | shares
        )
        cells = " | ".join(f"{100 * share:.1f}" for share in shares.values())
        print(f"| {n} | {k} | {world.accuracy}, {world.concentration:g} | {cells} |", flush=True)
    if options.json is not None:
        write_named(options.json, json_bytes({"repeats": options.repeats, "draws": options.draws, "rows": rows}))


if __name__ == "__main__":
    main()
