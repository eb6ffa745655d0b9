"""What a step is made of: constants, masks, order, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import tiny
from tests.support.selection_rows import Row, distill_config, sample_rows, write_selection
from vpgea.config.filtering import AdvantageConfig
from vpgea.errors import UsageError
from vpgea.filtering.utility import advantages_and_gates
from vpgea.runs.complete_phase import CompletePhase
from vpgea.storage.schemas import POSTERIOR, PRIOR
from vpgea.training.data import TrainingSet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("model"))


def training_set(model: Path, folder: Path, change: Any = None, **dotted: Any) -> tuple[TrainingSet, list[Row]]:
    config = distill_config(model, **dotted)
    rows = sample_rows(config)
    if change is not None:
        rows = change(rows)
    return TrainingSet(CompletePhase.open(write_selection(folder, config, rows), "filter"), config.distill), rows


def test_constants_count_rejected_paths_and_every_graded_prior_token(model: Path, tmp_path: Path) -> None:
    def one_timeout(rows: list[Row]) -> list[Row]:
        rows[0] |= {"status": "timeout", "advantage": 0.0}
        return rows

    data, rows = training_set(model, tmp_path, one_timeout, distill__questions_per_step=2)
    assert (data.steps_per_epoch, data.total_steps, data.K) == (2, 2, 3)
    steps = [data.step(0), data.step(1)]
    assert sorted(step.normalisers.N_q for step in steps) == [1, 2]
    for step in steps:
        questions = {data.questions[path.question] for path in step.paths}
        own = [row for row in rows if row["question_id"] in questions]
        lengths = [row["thinking_tokens"] for row in own if row["view"] == POSTERIOR]
        graded = [len(row["completion_ids"]) for row in own if row["view"] == PRIOR and row["status"] != "timeout"]
        assert step.normalisers.N_q == len(questions)
        assert step.normalisers.mean_length == pytest.approx(np.mean(lengths))
        assert step.normalisers.pg_tokens == sum(graded)


def test_each_round_draws_another_order_and_the_first_that_of_all_versions(model: Path, tmp_path: Path) -> None:
    config = distill_config(model, distill__questions_per_step=1, distill__epochs=2)

    def orders(index: int, **options: Any) -> tuple[list[int], int]:
        folder = tmp_path / f"{index}{options}"
        rows = [{**row, "round": index} for row in sample_rows(config, questions=8)]
        data = TrainingSet(
            CompletePhase.open(write_selection(folder, config, rows), "filter"), config.distill, **options
        )
        return [data.step(step).paths[0].question for step in range(16)], data.torch_seed

    found = [orders(index) for index in range(3)]
    assert [seed for _, seed in found] == [0, *{seed for _, seed in found[1:]} - {0}]
    assert len({tuple(order) for order, _ in found}) == 3
    assert all(sorted(order[:8]) == sorted(order[8:]) == list(range(8)) for order, _ in found)
    assert orders(2, by_round=False) == found[0], "what an earlier version began goes on in its order"


def test_cut_off_samples_are_in_unless_masked(model: Path, tmp_path: Path) -> None:
    data, rows = training_set(model, tmp_path / "in")
    masked, _ = training_set(model, tmp_path / "masked", distill__mask_truncated=True)
    cut = [row for row in rows if row["cut_off"]]
    assert len(data.paths) - len(masked.paths) == len(cut) == 3
    difference = data.step(0).normalisers.pg_tokens - masked.step(0).normalisers.pg_tokens
    assert difference == sum(len(row["completion_ids"]) for row in cut)


def test_posterior_paths_are_z_alone_and_dense_cv_takes_the_rejected_ones(model: Path, tmp_path: Path) -> None:
    data, rows = training_set(model, tmp_path / "sampled")
    posterior = [path for path in data.paths if not path.is_prior]
    assert {path.gate for path in posterior} == {1.25, 0.5}
    assert {path.other_gate for path in posterior} == {0.0}
    assert all(len(path.completion_ids) == path.thinking_tokens for path in posterior)
    dense, _ = training_set(model, tmp_path / "dense", distill__kl_form="dense-cv")
    found = [(path.gate, path.other_gate) for path in dense.paths if not path.is_prior]
    assert sorted(found) == sorted([(1.25, 0.25), (0.5, 0.625), (0.0, 0.875)] * 3)
    answered, _ = training_set(model, tmp_path / "answered", distill__answer_from="crossview")
    by_ids = {tuple(row["completion_ids"][: row["thinking_tokens"]]): row["crossview_answer_ids"] for row in rows}
    for path in (path for path in answered.paths if not path.is_prior):
        z, answer = path.completion_ids[: path.thinking_tokens], path.completion_ids[path.thinking_tokens :]
        assert by_ids[tuple(z.tolist())] == answer.tolist()
        assert np.isnan(path.sampler_logprobs[path.thinking_tokens :]).all()


def test_equal_utilities_leave_nothing_to_learn(model: Path, tmp_path: Path) -> None:
    advantages, gates = advantages_and_gates([0.4] * 3, [True] * 3, [0.4] * 3, [True] * 3, config=AdvantageConfig())

    def equal(rows: list[Row]) -> list[Row]:
        for row in rows:
            index = row["sample_index"]
            row.update(
                {"advantage": advantages[index]} if row["view"] == PRIOR else {"gate": gates[index], "reasons": []}
            )
        return rows

    for form in ("sampled", "dense-cv", "dense"):
        data, _ = training_set(model, tmp_path / form, equal, distill__kl_form=form)
        assert data.paths == []


def test_every_epoch_visits_each_question_once_in_an_order_of_its_own(model: Path, tmp_path: Path) -> None:
    def order(name: str, seed: int) -> list[list[int]]:
        dotted = {"distill__questions_per_step": 1, "distill__epochs": 4, "distill__seed": seed}
        data, _ = training_set(model, tmp_path / name, **dotted)
        visited = [data.step(index).paths[0].question for index in range(data.total_steps)]
        return [visited[start : start + 3] for start in range(0, 12, 3)]

    first = order("first", 0)
    assert all(sorted(epoch) == [0, 1, 2] for epoch in first)
    assert len({tuple(epoch) for epoch in first}) > 1
    assert order("again", 0) == first
    assert order("other", 1) != first


def test_the_order_does_not_depend_on_how_the_rows_were_stored(model: Path, tmp_path: Path) -> None:
    forward, _ = training_set(model, tmp_path / "forward")
    backward, _ = training_set(model, tmp_path / "backward", lambda rows: rows[::-1])
    assert [path.completion_ids.tolist() for path in forward.paths] == [
        path.completion_ids.tolist() for path in backward.paths
    ]


@pytest.mark.parametrize(("name", "value"), [("model_fingerprint", "x"), ("top_p", 0.5), ("template_fingerprint", "u")])
def test_samples_of_different_origin_are_refused(model: Path, tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match="mixes samples") as error:
        training_set(model, tmp_path, lambda rows: [{**rows[0], name: value}, *rows[1:]])
    assert name in error.value.why


def test_an_empty_selection_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to learn from"):
        training_set(model, tmp_path, lambda rows: [])


@pytest.mark.parametrize("change", [{"temperature": 0.6}, {"top_p": 0.9}, {"top_k": 20}])
def test_log_probabilities_of_another_distribution_are_not_used(
    model: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    data, _ = training_set(model, tmp_path, lambda rows: [{**row, **change} for row in rows])
    assert data.truncated_support
    assert all(np.isnan(path.sampler_logprobs).all() for path in data.paths)


def test_a_configuration_without_any_term_has_no_paths(model: Path, tmp_path: Path) -> None:
    data, _ = training_set(model, tmp_path, distill__kl_weight=0.0, distill__pg_weight=0.0)
    assert data.paths == []
    assert isinstance(data.step(0).normalisers.N_q, int)
