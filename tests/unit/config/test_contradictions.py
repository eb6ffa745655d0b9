"""Settings that would train something else than they say are refused before anything is sampled."""

from __future__ import annotations

from typing import Any

import pytest

from vpgea.config.contradictions import other_reference, require_consistent, require_followable_price
from vpgea.config.resolve import resolve
from vpgea.errors import UsageError
from vpgea_cli.main import run

DENSE_CV = {"distill.kl_form": "dense-cv"}
NOTED = {"rollout.noted_prior": True}
REFUSED: list[tuple[dict[str, Any], str]] = [
    *(({**DENSE_CV, "distill.teacher": teacher}, f"teacher={teacher}") for teacher in ("current", "frozen", "ema")),
    ({**DENSE_CV, "rollout.temperature": 0.6}, "temperature is 0.6"),
    ({**DENSE_CV, "rollout.top_p": 0.95}, "top_p 0.95"),
    ({**DENSE_CV, "rollout.top_k": 20, "distill.teacher": "stored"}, "top_k 20"),
    ({**DENSE_CV, "filter.advantage.group": "joint"}, "group=joint"),
    ({**DENSE_CV, "filter.advantage.gate": "importance"}, "gate=importance"),
    ({"distill.answer_from": "crossview", "filter.answerability.enabled": False}, "no answers to learn"),
    ({"distill.pg_form": "credited"}, "pg_form=credited has no posterior view of prior samples"),
    ({**NOTED, "distill.pg_form": "forward-kl"}, "pg_form=forward-kl cannot have filter.advantage.kind=normalised"),
    ({**NOTED, "views.note": "other"}, "noted_prior cannot have views.note=other"),
]
TAKEN: list[dict[str, Any]] = [
    DENSE_CV,
    {**DENSE_CV, "distill.teacher": "stored"},
    {**DENSE_CV, "distill.teacher": "current", "distill.kl_weight": 0.0},
    {"distill.kl_form": "dense", "distill.teacher": "current", "rollout.temperature": 0.6},
    {"rollout.temperature": 0.6, "filter.advantage.group": "joint"},
    {**DENSE_CV, "filter.advantage.gate": "contrast"},
    {"distill.answer_from": "crossview"},
    {**NOTED, "distill.pg_form": "credited"},
    {**NOTED, "distill.pg_form": "forward-kl", "filter.advantage.kind": "positive"},
    {"distill.pg_form": "reverse-kl", "distill.pg_weight": 0.0},
    {"views.note": "other"},
    {"filter.answerability.enabled": False},
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_what_would_learn_wrong_is_refused(options: dict[str, Any], said: str) -> None:
    config = resolve(options=options).config  # what an earlier version wrote can be read
    with pytest.raises(UsageError) as error:
        require_consistent(config)
    assert said in str(error.value)


@pytest.mark.parametrize("options", TAKEN)
def test_the_same_settings_apart_are_taken(options: dict[str, Any]) -> None:
    require_consistent(resolve(options=options).config)


FOLLOWS: dict[str, Any] = {"loop.price_step": 0.5, "loop.token_target": 50.0}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loop.token_target": None}, "price_step=0.5 has nothing to follow"),
        ({"filter.utility.length_price": 0.0}, "cannot have filter.utility.length_price=0: "),
        ({"objective": "grpo"}, "cannot have filter.utility.length_price=0: "),
        ({"loop.rounds": 4, "loop.eval_every": 4}, "cannot have loop.eval_every=4"),
        ({"loop.rounds": 1, "loop.eval_every": 2}, "cannot have loop.eval_every=2"),
        ({"filter.utility.kind": "sigmoid", "filter.utility.length_price": 0.2}, "it may become 2, and length_price"),
        ({"filter.utility.kind": "linear"}, "it may become 1, and length_price * c_max"),
    ],
)
def test_a_price_that_can_follow_nothing_is_refused(options: dict[str, Any], said: str) -> None:
    config = resolve(options=FOLLOWS | options).config
    require_consistent(config)  # as a round of it is: one without a price, or anywhere within its bounds
    with pytest.raises(UsageError) as error:
        require_followable_price(config)
    assert said in f"{error.value.what}: {error.value.why}"


@pytest.mark.parametrize(
    "options",
    [
        FOLLOWS,
        {**FOLLOWS, "loop.rounds": 1},
        {**FOLLOWS, "loop.rounds": 4, "loop.eval_every": 3},
        {**FOLLOWS, "filter.utility.kind": "sigmoid"},
        {"loop.eval_every": 20, "filter.utility.length_price": 0.0},
    ],
)
def test_a_price_that_can_follow_its_target_is_taken(options: dict[str, Any]) -> None:
    require_followable_price(resolve(options=options).config)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "the reference is the model without the adapter mine"),
        ({"distill.reference_weight": 0.0}, None),
        (
            {"distill.kl_form": "dense", "distill.teacher": "frozen"},
            "the reference and the frozen teacher is the model without the adapter mine",
        ),
        ({"distill.train": "full"}, None),
        ({"model.adapter": None}, None),
    ],
)
def test_a_loop_from_an_adapter_says_what_it_is_measured_against(options: dict[str, Any], said: str | None) -> None:
    found = other_reference(resolve(options={"model.adapter": "mine", **options}).config)
    assert found is None if said is None else found is not None and found.startswith(said)


@pytest.mark.parametrize(
    "command",
    [
        ("config", "validate"),
        ("rollout", "--model", "nowhere", "--dataset", "nowhere"),
        ("loop", "--model", "nowhere", "--dataset", "nowhere"),
        ("loop", "--model", "nowhere", "--dataset", "nowhere", "--dry-run"),
    ],
)
def test_commands_say_so_before_they_look_for_a_model(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--set", "distill.kl_form=dense-cv", "--set", "distill.teacher=current"]) == 2
    assert "dense-cv cannot have distill.teacher=current" in capsys.readouterr().err
