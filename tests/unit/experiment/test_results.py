"""Pooling seeds and correcting for all comparisons, against figures by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vpgea.experiment.results import Against, ObjectiveResult, SettingResult, corrected, pooled
from vpgea.metrics.bootstrap import Estimate, SampleTable, evaluate
from vpgea.metrics.paired import Gain


def test_seeds_are_samples_of_the_same_questions() -> None:
    """Ten questions that two seeds answer alike say no more than one seed does: intervals are as wide."""
    rng = np.random.default_rng(0)
    correct = (rng.random(40) < 0.7).astype(float)
    one = SampleTable(question=np.arange(40), correct=correct, tokens=np.full(40, 9.0), truncated=np.zeros(40))
    both = pooled([one, one])
    alone, together = (evaluate(table)["accuracy"] for table in (one, both))
    assert together.n == 2 * alone.n
    assert together.value == alone.value == correct.mean()
    assert together.low is not None
    assert alone.low is not None
    assert abs(together.low - alone.low) < 0.02


def test_e3_is_claimed_at_five_per_cent_of_all_comparisons_like_accuracy_and_tokens() -> None:
    """An interval that just leaves 1 out is a claim where it is the only one, and none among many."""
    none = Gain(estimate=Estimate(value=0.0, low=-0.1, high=0.1, n=9), p=1.0)
    against = Against(accuracy=none, tokens=none, e3=Estimate(value=1.5, low=1.01, high=2.2, n=9))
    clear = replace(against, e3=Estimate(value=3.0, low=2.5, high=3.6, n=9))

    def said(*each: Against) -> list[str]:
        objectives = [
            ObjectiveResult(
                objective=str(number), price=None, seeds=[0], sampled_tokens=1, rounds=1, metrics={}, e3_of_seeds=[1.0],
                against=one,
            )
            for number, one in enumerate(each)
        ]  # fmt: skip
        setting = SettingResult(name="", questions=9, base={}, objectives=objectives, without_round=[])
        (found,) = corrected([setting])
        return [one.against.verdict.split("ε³ ")[1] for one in found.objectives if one.against]

    assert said(clear) == ["better"]
    assert said(replace(clear, e3=Estimate(value=0.3, low=0.25, high=0.36, n=9))) == ["worse"]
    assert said(*[against] * 5, clear) == ["undecided"] * 5 + ["better"]
    assert said(replace(clear, e3=Estimate(value=1.5, low=None, high=None, n=9))) == [
        "undecided (no interval: too few questions)"
    ]


def test_forgetting_is_claimed_at_five_per_cent_of_all_comparisons_with_the_base() -> None:
    """On one test nothing is said of it; on two each gain is a comparison."""
    lost = Estimate(value=-0.1, low=-0.19, high=-0.01, n=9)
    one = ObjectiveResult(
        objective="a", price=None, seeds=[0], sampled_tokens=1, rounds=1, metrics={"accuracy_gain": lost},
        e3_of_seeds=[1.0],
    )  # fmt: skip
    far = replace(one, metrics={"accuracy_gain": replace(lost, low=-0.12, high=-0.08)})

    def said(*each: ObjectiveResult) -> list[str]:
        settings = [
            SettingResult(name="", test=str(number), questions=9, base={}, objectives=[result], without_round=[])
            for number, result in enumerate(each)
        ]
        return [setting.objectives[0].gain_verdict for setting in corrected(settings)]

    assert said(one) == [""]
    assert said(one, far) == ["lower", "lower"]
    assert said(one, one, one, far) == ["undecided"] * 3 + ["lower"]
