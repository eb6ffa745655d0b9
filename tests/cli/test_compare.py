"""`vpgea compare` on stored evaluations: figures by hand, refusals, formats, and rounds of a run."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.evaluations import Sample, write_evaluation

Cli = Callable[..., subprocess.CompletedProcess[str]]
QUESTIONS = 40


def base_samples() -> list[Sample]:
    """Every other question right; 100 tokens each, two samples of seeds that say which they are."""
    return [
        Sample(question=f"q{number:02d}", correct=number % 2 == 0, tokens=100 + number, seed=10 * number + index)
        for number in range(QUESTIONS)
        for index in range(2)
    ]


def tuned_samples() -> list[Sample]:
    """Half the tokens; the odd questions below 30 are right now, q00 is wrong in its first sample."""
    mended = [
        replace(sample, tokens=sample.tokens // 2, correct=sample.correct or int(sample.question[1:]) < 30)
        for sample in base_samples()
    ]
    return [replace(mended[0], correct=False), *mended[1:]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("compare") / "base", base_samples())


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("compare") / "tuned", tuned_samples(), model="1" * 16)


def compared(here: Cli, *runs: str | Path) -> dict[str, Any]:
    done = here("compare", *runs, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_gains_and_flips_by_hand(here: Cli, base: Path, tuned: Path) -> None:
    (one,) = compared(here, base, tuned)["sets"]
    (pair,) = one["pairs"]
    wrong_to_right, right_to_wrong = 15 * 2 / 80, 1 / 80
    assert pair["accuracy"]["estimate"]["value"] == pytest.approx(wrong_to_right - right_to_wrong)
    before, after = (sum(sample.tokens for sample in make()) for make in (base_samples, tuned_samples))
    assert pair["tokens"]["estimate"]["value"] == pytest.approx(after / before - 1)
    assert pair["flips"]["by_sample"] is True
    assert pair["flips"]["wrong_to_right"] == pytest.approx(wrong_to_right)
    assert pair["flips"]["right_to_wrong"] == pytest.approx(right_to_wrong)
    assert pair["same_weights"] is False
    assert [change["question_id"] for change in pair["questions"]][15] == "q00"
    assert {change["question_id"] for change in pair["questions"][:15]} == {f"q{n:02d}" for n in range(1, 30, 2)}
    assert "tokens -50" in pair["verdict"]
    assert "fewer; accuracy +36.3 points" in pair["verdict"]
    assert pair["verdict"].endswith("higher (paired, 40 questions x 2)")


def test_one_gain_has_one_interval_wherever_it_stands(here: Cli, base: Path, tuned: Path) -> None:
    for runs in ((base, tuned), (tuned, base)):
        (one,) = compared(here, *runs)["sets"]
        (pair,), figures = one["pairs"], one["runs"][1]["metrics"]
        assert figures["accuracy_gain"] == pair["accuracy"]["estimate"]
        bounds = [-pair["tokens"]["estimate"][name] for name in ("value", "high", "low")]
        assert [figures["token_saving"][name] for name in ("value", "low", "high")] == pytest.approx(bounds)


def test_exchanged_runs_give_the_opposite(here: Cli, base: Path, tuned: Path) -> None:
    (forth,), (back,) = (compared(here, *runs)["sets"][0]["pairs"] for runs in ((base, tuned), (tuned, base)))
    gain, loss = forth["accuracy"]["estimate"], back["accuracy"]["estimate"]
    assert (gain["value"], gain["low"], gain["high"]) == (-loss["value"], -loss["high"], -loss["low"])
    assert forth["flips"]["right_to_wrong"] == back["flips"]["wrong_to_right"]
    assert forth["accuracy_p_holm"] == back["accuracy_p_holm"]


def test_the_order_of_rows_and_other_seeds(here: Cli, base: Path, tuned: Path, tmp_path: Path) -> None:
    """Rows in another order are the same run; samples of other seeds are paired by question."""
    turned = write_evaluation(tmp_path / "turned", tuned_samples()[::-1], model="1" * 16)
    (one,), (other,) = (compared(here, base, run)["sets"][0]["pairs"] for run in (tuned, turned))
    for name in ("accuracy", "tokens"):
        assert one[name]["estimate"] == pytest.approx(other[name]["estimate"], nan_ok=True)
    assert {**one["flips"]} == pytest.approx(other["flips"])
    seeds = [replace(sample, seed=sample.seed + 1000) for sample in tuned_samples()]
    apart = write_evaluation(tmp_path / "seeds", seeds, model="1" * 16)
    flips = compared(here, base, apart)["sets"][0]["pairs"][0]["flips"]
    assert flips["by_sample"] is False
    assert flips["right_to_wrong"] == pytest.approx(0.5 / 40)


def test_the_same_weights_are_undecided_and_said_to_be_the_same(here: Cli, base: Path, tmp_path: Path) -> None:
    moved = [
        replace(sample, seed=sample.seed + 5000, tokens=sample.tokens + 1 - 2 * (sample.seed % 2))
        for sample in base_samples()
    ]
    again = write_evaluation(tmp_path / "again", moved)
    found = compared(here, base, again)
    assert found["verdict"].startswith("two runs of the same weights differ by chance: tokens +0.0 %")
    assert found["verdict"].count("undecided") == 2


def test_an_evaluation_and_itself_are_said_to_be_the_same(here: Cli, base: Path, tmp_path: Path) -> None:
    """By whatever name; and among others it is counted apart."""
    copied = shutil.copytree(base, tmp_path / "copied")
    for other in (base, base / "..", copied):
        again = other / base.name if other.name == ".." else other
        said = here("compare", base, again).stdout
        assert said == "the same evaluation twice, its folder or a copy of it: nothing was compared\n"
    tuned = write_evaluation(tmp_path / "tuned", tuned_samples(), model="1" * 16)
    found = compared(here, base, tuned, copied)
    assert [pair["is_itself"] for pair in found["sets"][0]["pairs"]] == [False, True]
    assert found["verdict"].endswith("; 1 of an evaluation with itself")


def test_few_questions_decide_nothing(here: Cli, tmp_path: Path) -> None:
    runs = [
        write_evaluation(
            tmp_path / name, [Sample(question=f"q{n}", correct=right, seed=n) for n in range(4)], model=name * 16
        )
        for name, right in (("a", False), ("b", True))
    ]
    verdict = compared(here, *runs)["verdict"]
    assert "accuracy +100.0 points: undecided (no interval: too few questions)" in verdict


def test_copies_of_a_question_are_one_in_every_interval(here: Cli, tmp_path: Path) -> None:
    """Forty questions of eight texts, as the orders of a record are: base and run differ in six of eight."""
    runs = [
        write_evaluation(
            tmp_path / name,
            [Sample(question=f"q{n:02d}", text=f"Which of {n % 8}?", correct=n % 8 < right, seed=n) for n in range(40)],
            model=name * 16,
        )
        for name, right in (("a", 1), ("b", 7))
    ]
    found = compared(here, *runs)
    (one,) = found["sets"]
    assert (one["questions"], one["records"]) == (40, 8)
    assert found["verdict"].endswith("(paired, 40 questions of 8 records x 1)")
    gain = one["pairs"][0]["accuracy"]["estimate"]
    assert gain["value"] == pytest.approx(0.75)
    assert gain["high"] - gain["low"] > 0.4, "of forty questions it would be less than 0.3 wide"
    assert one["runs"][0]["metrics"]["accuracy"]["warning"].startswith("40 questions are of 8 records")
    assert sum(each["questions"] for each in one["difficulty"]) == 8


def test_what_was_measured_otherwise_is_refused_with_a_way_out(here: Cli, base: Path, tmp_path: Path) -> None:
    for name, options, way in (
        ("cap", {"eval__max_new_tokens": 64}, "same cap"),
        ("grader", {"grading__grader": "exact"}, "vpgea regrade FOLDER --grader math"),
        ("questions", {"inputs": {"questions": "9" * 32}}, "same questions"),
        ("template", {"inputs": {"template": "9" * 16}}, "chat template"),
    ):
        other = write_evaluation(tmp_path / name, base_samples(), **options)
        done = here("compare", base, other)
        assert done.returncode == 2, name
        assert "measured otherwise" in done.stderr
        assert way in done.stderr
    assert here("compare", base).returncode == 2
    assert here("compare", base, tmp_path / "nothing").returncode == 2
    assert here("compare", base, base, "--format", "pdf").returncode == 2


def test_two_protocols_and_two_versions_of_one_are_never_compared(here: Cli, base: Path, tmp_path: Path) -> None:
    """Not with one another, nor with an evaluation by none."""
    stated = {"protocol.benchmark": "gsm8k", "protocol.name": "deepseek", "protocol.version": 1}
    first = write_evaluation(tmp_path / "first", base_samples(), protocol=stated, inputs={"protocol": "a"})
    again = write_evaluation(tmp_path / "again", base_samples(), protocol=stated, inputs={"protocol": "a"})
    assert here("compare", first, again).returncode == 0
    for key, value in (("protocol.version", 2), ("protocol.name", "lm-eval"), ("protocol.benchmark", "math500")):
        other = write_evaluation(tmp_path / key, base_samples(), protocol=stated | {key: value})
        done = here("compare", first, other)
        assert done.returncode == 2, key
        assert f"{key} is {stated[key]!r} in the base and {value!r} in" in done.stderr
        assert "same --benchmark and --protocol" in done.stderr
    changed = write_evaluation(tmp_path / "rows", base_samples(), protocol=stated, inputs={"protocol": "b"})
    assert "same rows for its examples" in here("compare", first, changed).stderr
    done = here("compare", base, first)
    assert done.returncode == 2
    assert "protocol.benchmark is not stated in the base" in done.stderr


def test_several_sets_are_corrected_together(here: Cli, tmp_path: Path) -> None:
    """`hard` has a set of its own, which is left out and said to be."""
    for run, make in (("base", base_samples), ("tuned", tuned_samples)):
        for number, name in enumerate(("aime", "gsm")):
            write_evaluation(tmp_path / run / name, make(), model=run[:1] * 16, inputs={"questions": str(number) * 32})
    write_evaluation(tmp_path / "tuned" / "hard", base_samples())
    found = compared(here, tmp_path / "base", tmp_path / "tuned")
    assert [one["name"] for one in found["sets"]] == ["aime", "gsm"]
    assert found["left_out"] == ["hard"]
    assert found["verdict"].startswith("of 2 comparisons, at 5 % for all together (Holm): accuracy higher in 2")
    for one in found["sets"]:
        (pair,) = one["pairs"]
        assert pair["accuracy_p_holm"] == pytest.approx(min(1, 2 * pair["accuracy"]["p"]))
    assert "hard is not in all runs" in here("compare", tmp_path / "base", tmp_path / "tuned").stderr


def test_rounds_of_a_run_by_their_names(here: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_evaluation(run / "base" / "eval", base_samples())
    write_evaluation(run / "round-003" / "eval", tuned_samples(), model="1" * 16)
    found = compared(here, f"{run}@base", f"{run}@3")
    assert found["base"] == f"{run}@base"
    assert "fewer" in found["verdict"]
    for wrong in (f"{run}@7", f"{run}", f"{tmp_path}/no@base"):
        done = here("compare", f"{run}@base", wrong)
        assert done.returncode == 2
        assert "RUN@best" in done.stderr


def test_formats_hold_the_same_figures(here: Cli, base: Path, tuned: Path) -> None:
    pair = compared(here, base, tuned)["sets"][0]["pairs"][0]
    rows = list(csv.DictReader(io.StringIO(here("compare", base, tuned, "--format", "csv").stdout)))
    gain = next(row for row in rows if row["figure"] == "paired_accuracy_gain")
    assert float(gain["value"]) == pair["accuracy"]["estimate"]["value"]
    assert float(gain["low"]) == pair["accuracy"]["estimate"]["low"]
    markdown = here("compare", base, tuned, "--format", "markdown").stdout.splitlines()
    assert [line.count("|") for line in markdown] == [9] * 4
    assert f"{pair['accuracy']['estimate']['value']:.3f} [" in markdown[3]
    latex = here("compare", base, tuned, "--format", "latex").stdout
    assert latex.startswith(r"\begin{tabular}{llllllll}")
    assert str(tuned).replace("_", r"\_") in latex
    shown = here("compare", base, tuned)
    assert shown.stdout.strip() == pair["verdict"]
    for line in (
        "accuracy_finished",
        "right -> wrong 1.2%",
        "questions that changed most, 10 of 40",
        "told by every second sample",
    ):
        assert line in shown.stderr
