"""SGLang as it is released serves base and adapter, and the trainer finds its log-probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.places import DEVICE, command, server_python
from tests.support import overthinker
from vpgea.config.resolve import dump_yaml, resolve
from vpgea.engines.sglang.weights.establish import CANARY_TOLERANCE

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("train", ["lora", "full"])
def test_a_loop_samples_and_scores_with_its_own_server(train: str, tmp_path: Path) -> None:
    two_rounds(tmp_path, distill__train=train, distill__learning_rate=2e-3 if train == "lora" else 2e-4)


def test_a_server_that_stays_while_the_loop_trains_is_given_the_new_adapter(tmp_path: Path) -> None:
    stays = {"sglang__keep_servers": True, "sglang__options": ["--mem-fraction-static", "0.3"]}
    two_rounds(tmp_path, **stays, distill__train="lora", distill__learning_rate=2e-3)
    assert len(list((tmp_path / "run").rglob("sglang-*.log"))) == 1, "it was started once"


def two_rounds(folder: Path, **dotted: Any) -> None:
    """A loop whose second round samples with the weights of the first, which the canary beside them has verified."""
    python = server_python()
    if python is None:
        pytest.skip("no SGLang here: docs/engines.md installs it")
    options = overthinker.options(
        model__device=DEVICE,
        model__dtype="bfloat16",
        rollout__engine="sglang",
        sglang__python=python,
        loop__eval_dataset=str(overthinker.ROOT / "questions" / "test.jsonl"),
        loop__eval_limit=8,
        loop__rounds=2,
        distill__questions_per_step=4,
        filter__plausibility__enabled=False,
        **dotted,
    )
    (folder / "run.yaml").write_text(dump_yaml(resolve(options=options).config), encoding="utf-8")
    command(folder, "loop", "-c", "run.yaml", "-o", "run", "-q", "--offline")
    lines = [json.loads(text) for text in (folder / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["round"] for line in lines] == [None, 0, 1]
    for line in lines[1:]:
        assert line["trained_tokens"] > 0
        assert line["engine_mismatch"] < CANARY_TOLERANCE["bfloat16"]
