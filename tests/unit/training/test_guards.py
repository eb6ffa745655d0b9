"""Guards: what is left out, what is alarming, what ends a training, and the words of reflection."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import tiny
from tests.unit.training.test_training_batching import path_of
from vpgea.config.resolve import resolve
from vpgea.config.schema import ModelConfig, RunConfig
from vpgea.errors import UsageError, VpgeaError
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.history import entropy_at_start
from vpgea.training.guards import Guards, epistemic_ids, per_1000_tokens


def guards(**options: Any) -> Guards:
    return Guards(config=RunConfig(distill=options).distill)  # type: ignore[arg-type]


def test_bad_steps_are_counted_and_fatal_in_a_row_only() -> None:
    watch = guards(max_bad_steps=2)
    assert [watch.is_usable(step, 1.0, norm) for step, norm in enumerate([1.0, math.nan, 1.0, math.inf])] == [
        *(True, False, True, False)
    ]
    with pytest.raises(VpgeaError, match="step 4 is not finite"):
        watch.is_usable(4, math.nan, 1.0)
    assert watch.skipped_steps == 3


def test_the_alarm_compares_with_the_first_entropy() -> None:
    watch = guards(entropy_floor=0.5)
    assert watch.watch(None, 0.0) is None  # a step without prior samples
    assert watch.watch(2.0, 0.0) is None
    assert watch.watch(1.1, 0.0) is None
    assert watch.watch(0.9, 0.0) == "entropy fell from 2 to 0.9 nats per token"
    assert (watch.alarms, watch.ended) == (1, None)
    assert guards(entropy_floor=0.0).watch(1.0, 0.0) is None


def test_a_collapse_over_rounds_alarms_although_each_round_is_steady(tmp_path: Path) -> None:
    rounds: list[list[float | None]] = [[None, 2.0, 1.9], [1.5], [0.9, 0.9]]
    for index, entropies in enumerate(rounds):
        folder = tmp_path / f"round-{index:03d}" / "distill"
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps({"entropy": value}) + "\n" for value in entropies))
    at_start = entropy_at_start(tmp_path / "round-002" / "distill")
    assert at_start == 2.0
    watch = Guards(config=RunConfig(distill={"entropy_floor": 0.5}).distill, first_entropy=at_start)  # type: ignore[arg-type]
    assert watch.watch(0.9, 0.0) == "entropy fell from 2 to 0.9 nats per token"
    assert entropy_at_start(tmp_path / "round-000" / "distill") is None
    assert entropy_at_start(tmp_path / "alone") is None


def test_collapse_and_distance_end_a_training_where_they_are_told_to() -> None:
    watch = guards(entropy_floor=0.5, stop_on_collapse=True)
    watch.watch(2.0, 0.0)
    watch.watch(0.1, 0.0)
    assert watch.ended == "entropy fell from 2 to 0.1 nats per token"
    watch = guards(max_reference_kl=0.1)
    watch.watch(1.0, 0.09)
    assert watch.ended is None
    watch.watch(1.0, 0.11)
    assert watch.ended is not None
    assert "0.11 nats per token, the limit 0.1" in watch.ended


def test_a_checkpoint_takes_their_state_along() -> None:
    watch = guards(entropy_floor=0.5)
    watch.watch(2.0, 0.0)
    watch.is_usable(0, math.nan, 1.0)
    restored = guards(entropy_floor=0.5)
    restored.restore(watch.state())
    assert restored == watch
    assert restored.watch(0.9, 0.0) is not None


def test_words_are_found_whatever_their_case_and_the_space_before_them(tmp_path: Path) -> None:
    class Vocabulary:
        def get_vocab(self) -> dict[str, int]:
            return {"ĠWait": 3, "wait": 4, "▁check": 5, "checked": 6, "Ġhmm": 7, "Ġ": 8, "twait": 9, "HOWEVER": 10}

    assert sorted(epistemic_ids(Vocabulary())) == [3, 4, 5, 7, 10]
    tokenizer = LocalModel.resolve(ModelConfig(path=str(tiny.make_model(tmp_path)))).tokenizer
    assert epistemic_ids(tokenizer).dtype == np.int64


def test_counts_per_thousand_tokens() -> None:
    paths = [path_of(0, 253), path_of(1, 253)]
    paths[0].completion_ids[:3] = 7
    paths[1].completion_ids[0] = 8
    assert per_1000_tokens(paths, np.array([7, 8])) == 8.0
    assert per_1000_tokens(paths, np.array([], np.int64)) == 0.0
    assert per_1000_tokens([], np.array([7])) is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"distill.kl_clip": 1.0, "distill.kl_form": "dense-cv"}, "no longer cancel"),
        ({"distill.max_reference_kl": 1.0, "distill.reference_weight": 0.0}, "reference_weight above 0"),
        ({"distill.optimizer": "adafactor", "distill.parallel": "fsdp"}, "use ddp"),
    ],
)
def test_guards_that_do_not_fit_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(options=options)
    assert told in str(error.value)
