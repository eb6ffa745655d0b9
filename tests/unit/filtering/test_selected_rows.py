"""What a filter writes of its samples: means of measurements, both sets; and measurements that are of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.measured_rows import Row, posterior, prior, select_from, select_rows, selection, views, write_pair
from vpgea.config.schema import RunConfig
from vpgea.errors import DamagedError
from vpgea.questions.load import Question
from vpgea.storage.files import file_checksum


def test_means_of_the_measurements(tmp_path: Path) -> None:
    rows = [
        posterior(
            "a", 0, answerability=0.5, early_exits=[0.0, None, 1.0], counterfactual_logprob=-3.0, derivation=None
        ),
        posterior(
            "a", 1, answerability=1.0, early_exits=[0.5, None, 1.0], counterfactual_logprob=None, derivation=0.25
        ),
        posterior("a", 2, status="wrong", answerability=None, answerability_valid=None, derivation=None),
    ]
    checks = select_rows(tmp_path, rows)[0].checks
    assert (checks["answerability"], checks["answerability_n"]) == (0.75, 2)
    assert (checks["derivation"], checks["derivation_n"]) == (0.25, 1)
    assert (checks["early_exit_25"], checks["early_exit_50"], checks["early_exit_75"]) == (0.25, None, 1.0)
    assert (checks["counterfactual_logprob"], checks["own_note_logprob"]) == (-3.0, -1.0)


def test_selecting_again_after_a_kill_before_the_summary_gives_the_same_files(tmp_path: Path) -> None:
    rows = [row for q in "abcd" for row in (prior(q, 0), prior(q, 1, status="wrong"), posterior(q, 0, thinking=3))]
    config = RunConfig()
    folders = write_pair(tmp_path, rows, chunks=4)
    summary = select_from(config, *folders)
    names = [path for path in folders[1].rglob("*") if path.is_file()]
    before = {path: file_checksum(path) for path in names}
    for path in (folders[1] / "summary.json", *(folders[1] / "selected").glob("chunk-0000[23]*")):
        path.unlink()
    (folders[1] / "rejected" / "chunk-00001.json").unlink()
    assert select_from(config, *folders) == summary
    assert {path: file_checksum(path) for path in names} == before


def test_rows_carry_the_prompts_that_training_needs(tmp_path: Path) -> None:
    config = RunConfig()
    rows = [prior("a", 0), posterior("a", 0, prompt_ids=[1, 2, 3], crossview_answer_ids=[3, 4])]
    folders = write_pair(tmp_path, rows)
    select_from(config, *folders)
    found = selection(folders[1])
    question = Question("a", "What is a?", "12")
    assert found["a", "prior", 0]["prompt_ids"] == views().prior_prompt(question)
    assert found["a", "prior", 0]["posterior_prompt_ids"] is None
    assert found["a", "posterior", 0]["prompt_ids"] == views().prior_prompt(question)
    assert found["a", "posterior", 0]["posterior_prompt_ids"] == [1, 2, 3], "the very prompt that it was sampled with"
    assert found["a", "posterior", 0]["crossview_answer_ids"] == [3, 4]


def test_prior_samples_whose_teacher_is_the_posterior_carry_its_prompt_and_count_whatever_their_grade(
    tmp_path: Path,
) -> None:
    rows = [prior("a", 0), prior("a", 1), prior("b", 0, status="wrong"), prior("b", 1, status="error")]
    summary, found = select_rows(tmp_path, rows, rollout__noted_prior=True, filter__advantage__kind="one")
    noted = views().posterior_prompt(Question("a", "What is a?", "12"))
    assert [row["posterior_prompt_ids"] == noted for row in found.values()] == [True, True, False, False]
    assert all(row["posterior_prompt_ids"] for row in found.values())
    assert [row["advantage"] for row in found.values()] == [1, 1, 1, 0]
    assert summary.counts["prior_with_advantage"] == 3


@pytest.mark.parametrize(
    ("measured", "chunks", "why"),
    [
        ([prior("a", 0), posterior("a", 0)], 1, "its rows are not those of the chunk"),
        ([prior("a", 0), posterior("a", 0), posterior("b", 0)], 1, "its rows are not those of the chunk"),
        ([prior("a", 0), posterior("a", 0), posterior("a", 1)], 3, "it has 3 chunks, and the rollout has 1"),
        (
            [prior("a", 0), posterior("a", 0), posterior("a", 1, other_view_logprobs=[-1.0])],
            1,
            "4 tokens of a have 1 log-probabilities",
        ),
    ],
)
def test_measurements_that_are_not_of_the_rollout_are_damage(
    tmp_path: Path, measured: Sequence[Row], chunks: int, why: str
) -> None:
    rollout, _ = write_pair(tmp_path / "sampled", [prior("a", 0), posterior("a", 0), posterior("a", 1)])
    _, folder = write_pair(tmp_path / "measured", measured, chunks)
    with pytest.raises(DamagedError, match="does not measure this rollout") as told:
        select_from(RunConfig(), rollout, folder)
    assert why in told.value.why
