"""Sampling until an interval is narrow enough, on the testbed: what it takes over, where it ends, how it goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support import overthinker, rollouts
from vpgea.config.schema import RunConfig
from vpgea.engines.base import Engine
from vpgea.engines.lease import EngineLease
from vpgea.errors import UsageError
from vpgea.metrics.estimates import Estimate
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.evaluate import evaluate
from vpgea.phases.evaluations import find_evaluations
from vpgea.phases.widths import Width, evaluate_until
from vpgea.questions.load import load_questions
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.parts import WHOLE, Part


def until(
    folder: Path, width: float, most: int, *, overwrite: bool = False, **dotted: Any
) -> tuple[Path, list[str], Estimate]:
    chosen, said = overthinker.config(**dotted), list[str]()
    questions = load_questions(chosen.data).questions
    last, found = evaluate_until(chosen, questions, folder, Width(width, most), overwrite=overwrite, say=said.append)
    return last, said, found.metrics["accuracy" if found.baseline is None else "accuracy_gain"]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One and two samples per question: the limit is reached before the width."""
    folder = tmp_path_factory.mktemp("grown") / "eval"
    last, said, _ = until(folder, 1e-6, 2)
    assert last == folder / "samples-0002"
    assert [line.split()[0] for line in said[:2]] == ["1", "2"]
    assert "2 is the limit" in said[2]
    return folder


def identity(row: dict[str, Any]) -> tuple[str, int]:
    return row["question_id"], row["sample_index"]


def test_samples_are_taken_over_and_nothing_else_differs(grown: Path, tmp_path: Path) -> None:
    """Every sample of fewer is one of more; all are those that an evaluation of as many draws by their seeds."""
    one, two = (rollouts.rows_of(grown / name) for name in ("samples-0001", "samples-0002"))
    by_identity = {identity(row): row for row in two}
    assert len(two) == 16
    for row in one:
        later = by_identity[identity(row)]
        assert (row["completion_ids"], row["logprobs"]) == (later["completion_ids"], later["logprobs"])
    config = overthinker.config(eval__samples=2)
    evaluate(config, load_questions(config.data).questions, tmp_path / "whole")
    assert [row["seed"] for row in rollouts.rows_of(tmp_path / "whole")] == [row["seed"] for row in two]


def test_it_ends_at_the_width(grown: Path, tmp_path: Path) -> None:
    """Wide enough for two samples: no third is drawn, and the interval is as narrow."""
    copy = shutil.copytree(grown, tmp_path / "eval")
    widths = []
    for name in ("samples-0001", "samples-0002"):
        alone = shutil.copytree(grown / name, tmp_path / name / name).parent
        last, _, estimate = until(alone, 0.999, 64, eval__samples=int(name[-1]))
        assert last == alone / name
        widths.append((estimate.high or 0) - (estimate.low or 0))
    assert widths[1] < widths[0]
    last, said, estimate = until(copy, (widths[0] + widths[1]) / 2, 64)
    assert last == copy / "samples-0002"
    assert len(said) == 2
    assert not (copy / "samples-0004").exists()


def test_the_next_call_goes_on_without_a_model(grown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_engine(self: EngineLease, config: RunConfig, model: LocalModel) -> Engine:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(EngineLease, "get", no_engine)
    before = rollouts.bytes_of(grown / "samples-0002")
    assert until(grown, 1e-6, 2)[0] == grown / "samples-0002"
    assert rollouts.bytes_of(grown / "samples-0002") == before


def test_what_was_sampled_further_is_the_result_of_a_wider_interval_too(grown: Path) -> None:
    """Else the figures that are shown would not be those that `compare` takes for the folder."""
    last, said, _ = until(grown, 0.999, 1)
    assert last == grown / "samples-0002"
    assert len(said) == 2


def test_what_is_overwritten_leaves_no_evaluation_of_more_samples(grown: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(grown, tmp_path / "eval")
    last, _, _ = until(copy, 0.999, 64, overwrite=True, eval__seed=5)
    assert last == copy / "samples-0001"
    assert [path.name for path in copy.iterdir() if path.name.startswith("samples")] == ["samples-0001"]


def test_an_evaluation_itself_holds_no_others(grown: Path) -> None:
    with pytest.raises(UsageError, match="holds an evaluation itself"):
        until(grown / "samples-0001", 0.1, 64)


def test_the_last_one_counts_in_comparisons(grown: Path) -> None:
    (found,) = find_evaluations(str(grown)).values()
    assert found.root == grown / "samples-0002"
    sets = find_evaluations(str(grown.parent))
    assert {name: one.root for name, one in sets.items()} == {"eval": grown / "samples-0002"}
    with pytest.raises(UsageError, match="has evaluations of 1 and 2 samples") as refused:
        CompletePhase.open(grown, "eval")
    assert refused.value.mend == f"give {grown / 'samples-0002'}"


def test_with_a_baseline_the_gain_is_watched(grown: Path, tmp_path: Path) -> None:
    _, said, estimate = until(tmp_path / "eval", 0.99, 1, eval__seed=5, eval__baseline=str(grown / "samples-0002"))
    assert "interval of accuracy_gain" in said[0]
    assert estimate.low is not None


def test_what_contradicts_itself_is_refused(tmp_path: Path) -> None:
    config = overthinker.config(eval__samples=4)
    assert Width.asked(None, None, config, WHOLE) is None
    assert Width.asked(0.1, None, config, WHOLE) == Width(0.1, 64)
    for width, most, part, why in (
        (None, 8, WHOLE, "was not given"),
        (2.0, 8, WHOLE, "none of a share"),
        (0.1, 2, WHOLE, "begins with 4"),
        (0.1, 8, Part(0, 2), "no part knows the others"),
    ):
        with pytest.raises(UsageError) as refused:
            Width.asked(width, most, config, part)
        assert why in refused.value.why
    with pytest.raises(UsageError, match="no interval"):
        until(tmp_path / "eval", 0.1, 2, data__limit=3)
