"""Objectives as compositions of keys: what they fix, and what may not be said against them."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest

from vpgea.config.contradictions import require_consistent
from vpgea.config.objectives import OBJECTIVES, Name
from vpgea.config.resolve import dump_yaml, flat_config, from_flat, loads, resolve
from vpgea.config.schema import RunConfig, value_of
from vpgea.errors import UsageError


def test_every_name_has_its_objective() -> None:
    assert list(OBJECTIVES) == list(typing.get_args(Name))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_a_consistent_configuration_that_a_file_gives_back(name: Name) -> None:
    config = resolve(options={"objective": name}).config
    require_consistent(config)
    assert {key: value_of(config, key) for key in OBJECTIVES[name].settings} == dict(OBJECTIVES[name].settings)
    assert loads(dump_yaml(config)) == config


def test_no_two_objectives_are_the_same() -> None:
    found = [flat_config(resolve(options={"objective": name}).config) | {"objective": None} for name in OBJECTIVES]
    same = {"grpo", "truncate"}  # told apart by loop.cap_decay, which is everyone's own choice
    for one, name in zip(found, OBJECTIVES, strict=True):
        twins = {other for config, other in zip(found, OBJECTIVES, strict=True) if config == one}
        assert twins == ({name} if name not in same else same)


def test_the_method_itself_is_what_the_defaults_are() -> None:
    assert resolve(options={"objective": "vpg-ea"}).config.model_copy(update={"objective": None}) == RunConfig()


def test_an_objective_stands_above_what_lies_below_the_place_where_it_is_chosen(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("rollout: {posterior_samples: 4, prior_samples: 3}\nfilter: {leaks: {enabled: false}}\n")
    resolved = resolve(file=file, options={"objective": "grpo"})
    assert resolved.config.rollout.posterior_samples == 0
    assert resolved.origins["rollout.posterior_samples"] == "objective grpo"
    assert resolved.config.rollout.prior_samples == 3
    assert resolved.config.filter.leaks.enabled  # what another objective would change is at its default


def test_what_contradicts_it_beside_or_above_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("objective: grpo\nrollout: {posterior_samples: 4}\n")
    with pytest.raises(UsageError) as raised:
        resolve(file=file)
    assert raised.value.what == "objective grpo cannot have rollout.posterior_samples=4"
    assert str(file) in str(raised.value.why)
    with pytest.raises(UsageError, match=r"cannot have filter\.utility\.kind='linear'"):
        resolve(options={"objective": "laser-d"}, sets=["filter.utility.kind=linear"])
    file.write_text("objective: grpo\nrollout: {posterior_samples: 0}\n")  # as a written configuration says it
    assert resolve(file=file, sets=["filter.answerability.samples=3"]).config.objective == "grpo"


def test_what_a_folder_recorded_stays_as_it_was_made() -> None:
    recorded = flat_config(resolve(options={"objective": "grpo"}).config) | {"filter.advantage.std_min": 0.2}
    again = resolve(inherited=[("a folder", recorded | {"rollout.posterior_samples": 2})]).config
    assert again.rollout.posterior_samples == 2  # of a version in which grpo was something else
    assert from_flat(flat_config(again)) == again
    other = resolve(inherited=[("a folder", recorded)], options={"objective": "on-policy-sft"}).config
    assert other.distill.pg_form == "cross-entropy"
    assert other.filter.advantage.std_min == 0.2
    with pytest.raises(UsageError, match=r"objective grpo cannot have filter\.utility\.length_price=1"):
        resolve(inherited=[("a folder", recorded)], sets=["filter.utility.length_price=1"])
    assert resolve(inherited=[("a folder", recorded)], sets=["objective=null", "filter.utility.length_price=1"])


def test_an_unknown_objective_is_refused_with_all_names() -> None:
    with pytest.raises(UsageError, match="objective cannot be 'gpro'") as raised:
        resolve(options={"objective": "gpro"})
    assert "grpo, grpo-sigmoid-length" in str(raised.value.mend)


def test_the_environment_names_one_too() -> None:
    found = resolve(env={"VPGEA_OBJECTIVE": "grpo"})
    assert found.config.objective == "grpo"
    assert found.passed_over == ()
    with pytest.raises(UsageError, match="unknown environment variable VPGEA_OBJECTIV"):
        resolve(env={"VPGEA_OBJECTIV": "grpo"})
