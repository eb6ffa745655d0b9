"""An experiment's file and the runs that follow from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import overthinker
from vpgea.config.contradictions import require_consistent
from vpgea.config.resolve import flat_config
from vpgea.errors import UsageError
from vpgea.experiment.grid import Experiment, read_experiment

GRID: dict[str, Any] = {
    "config": "loop.yaml",
    "objectives": {"vpg-ea": {}, "grpo": {"rollout.prior_samples": 5}, "as-it-is": {"objective": None}},
    "prices": [0.1, 1],
    "seeds": [0, 3],
    "sampled_tokens": 5000,
    "test": {"dataset": "test.jsonl", "samples": 2},
}


@pytest.fixture
def read(tmp_path: Path) -> Any:
    (tmp_path / "loop.yaml").write_text("loop: {rounds: 7}\nfilter: {plausibility: {enabled: false}}\n")
    (tmp_path / "test.jsonl").write_text("")
    (tmp_path / "a-model").mkdir()

    def of(**changed: Any) -> Experiment:
        file = tmp_path / "experiment.yaml"
        given = {**GRID, **changed}
        file.write_text(
            yaml.safe_dump({key: value for key, value in given.items() if value is not None}, sort_keys=False)
        )
        return read_experiment(file)

    return of


def test_the_runs_are_the_product_of_objectives_prices_and_seeds(read: Any) -> None:
    names = [run.name for run in read().runs]
    assert names == [
        *(f"vpg-ea_price-{price}_seed-{seed}" for price in ("0.1", "1") for seed in (0, 3)),
        *(f"grpo_seed-{seed}" for seed in (0, 3)),  # it fixes the price at 0
        *(f"as-it-is_price-{price}_seed-{seed}" for price in ("0.1", "1") for seed in (0, 3)),
    ]


@pytest.mark.parametrize("file", ["experiment.yaml", "sound-part.yaml"])
def test_a_shipped_experiment_is_one(file: str) -> None:
    experiment = read_experiment(overthinker.ROOT / file)
    assert len({run.name for run in experiment.runs}) == len(experiment.runs) > 1
    for run in experiment.runs:
        require_consistent(run.config)


def test_a_run_has_its_objective_price_seeds_and_bound(read: Any) -> None:
    run = next(run for run in read().runs if run.name == "vpg-ea_price-1_seed-3")
    config = run.config
    assert (config.objective, config.filter.utility.length_price) == ("vpg-ea", 1.0)
    assert (config.rollout.seed, config.distill.seed, config.eval.seed) == (3, 3, 3)
    assert (config.loop.rounds, config.loop.max_sampled_tokens) == (7, 5000)
    assert config.filter.plausibility.enabled  # which the objective has, whatever the file says


def test_what_has_no_objective_is_what_the_configuration_says(read: Any) -> None:
    run = next(run for run in read().runs if run.objective == "as-it-is")
    assert run.config.objective is None
    assert not run.config.filter.plausibility.enabled


def test_keys_of_one_objective_are_its_own(read: Any) -> None:
    samples = {run.objective: run.config.rollout.prior_samples for run in read().runs}
    assert samples["grpo"] == 5 != samples["vpg-ea"]


def test_settings_multiply_the_runs_and_find_files_beside_the_experiment(read: Any, tmp_path: Path) -> None:
    found = read(settings={"small": {"model.path": "a-model"}, "large": {"model.path": "no/such-id"}})
    assert len(found.runs) == 20
    assert {run.config.model.path for run in found.runs if run.setting == "small"} == {str(tmp_path / "a-model")}
    assert {run.config.model.path for run in found.runs if run.setting == "large"} == {"no/such-id"}
    assert found.runs[0].name.startswith("small_vpg-ea")
    assert found.tests[""].dataset == str(tmp_path / "test.jsonl")


def test_tests_have_names_and_come_after_the_one_without(read: Any, tmp_path: Path) -> None:
    named = {"other-family": {"dataset": "test.jsonl", "samples": 3}}
    assert list(read(tests=named).tests) == ["", "other-family"]
    found = read(test=None, tests=named)
    assert list(found.tests) == ["other-family"]
    assert found.tests["other-family"].dataset == str(tmp_path / "test.jsonl")
    assert found.tests["other-family"].samples == 3


def test_the_reference_is_the_first_unless_it_is_named(read: Any) -> None:
    assert read().reference == "vpg-ea"
    assert read(reference="grpo").reference == "grpo"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seeds": []}, "seeds is not what it must be"),
        ({"seeds": None}, "seeds is not what it must be"),
        ({"sedes": [1]}, "sedes is not what it must be"),
        ({"seeds": None, "sedes": [1]}, "sedes is not what it must be"),
        ({"keys": {"objective": "grpo"}}, "sets objective among the keys of"),
        ({"prices": [-1]}, "prices.0 is not what it must be"),
        ({"test": {"dataset": "test.jsonl", "samples": "two"}}, "test.samples is not what it must be"),
        ({"test": None}, "has no test questions"),
        ({"tests": {"a/b": {"dataset": "test.jsonl"}}}, "nothing can be named 'a/b'"),
        ({"tests": {"base_seed-0": {"dataset": "test.jsonl"}}}, "no test can be named base_seed-0"),
        (
            {"tests": {"vpg-ea_price-1_seed-3_round-007": {"dataset": "test.jsonl"}}},
            "can be named vpg-ea_price-1_seed-3",
        ),
        ({"tests": {"a": {"samples": 2}}}, "tests.a.dataset is not what it must be"),
        ({"seeds": [1, 1]}, "_seed-1 twice"),
        ({"reference": "star"}, "reference is star"),
        ({"objectives": {"gpro": {}}}, "there is no objective gpro"),
        (
            {"objectives": {"vpg-ea": {"rollout.prior_sample": 3}}},
            "vpg-ea: unknown configuration key rollout.prior_sample",
        ),
        ({"objectives": {"vpg-ea": {"distill.seed": 3}}}, "sets distill.seed among the keys of vpg-ea"),
        ({"objectives": {"vpg-ea": {"filter.plausibility.enabled": False}}}, "objective vpg-ea cannot have"),
        ({"objectives": {"../x": {"objective": "grpo"}}}, "nothing can be named '..-x'"),
        ({"config": "none.yaml"}, "configuration file cannot be read"),
    ],
)
def test_a_file_that_is_wrong_says_where(read: Any, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(**changed)
    assert words in refused.value.what
    assert refused.value.mend


@pytest.mark.parametrize(
    ("changed", "meant"),
    [
        ({"sedes": [1]}, "seeds"),
        ({"test": {"dataset": "test.jsonl", "sample": 2}}, "test.samples"),
        ({"tests": {"a": {"dataset": "test.jsonl", "sample": 2}}}, "tests.a.samples"),
        ({"objectives": {"other-note": {}}}, "vpg-ea/other-note"),
        ({"reference": "gpro"}, "grpo"),
    ],
)
def test_what_is_misspelt_is_told_with_what_was_meant(read: Any, changed: dict[str, Any], meant: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(**changed)
    assert refused.value.mend.startswith(f"did you mean {meant}? ")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_experiment(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UsageError, match="is not what it must be"):
        read_experiment(tmp_path / "list.yaml")


def test_the_shipped_grid_of_gates_differs_in_what_it_names_alone() -> None:
    runs = [run for run in read_experiment(overthinker.ROOT / "gates.yaml").runs if run.seed == 0]
    reference = flat_config(runs[0].config)
    differing = {
        run.objective: sorted(key for key, value in flat_config(run.config).items() if value != reference[key])
        for run in runs
    }
    assert differing.pop("vpg-ea") == []
    assert set(map(tuple, differing.values())) == {("filter.advantage.gate",)}
