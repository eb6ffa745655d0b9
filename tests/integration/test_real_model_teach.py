"""SmolLM2-135M-Instruct, as `make test-smollm2` converts it, is taught for two steps: with its own tokens and chat."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from safetensors.torch import load_file

from examples.smollm2.problems import problems
from examples.smollm2.teach import CONFIG, teach
from examples.smollm2.traces import shortest_trace
from tests.support.real_model import MODEL, require_converted
from vpgea.config.resolve import resolve
from vpgea.modeling.local_model import LocalModel
from vpgea.prompts.views import load_views
from vpgea.storage.files import read_json_lines
from vpgea.storage.rows import read_rows
from vpgea.storage.schemas import SelectionRow

pytestmark = pytest.mark.smollm2
TOKENS = 1200


def test_the_model_is_taught_traces_three_times_as_long_as_needed(tmp_path: Path) -> None:
    require_converted()
    small = {"distill.questions_per_step": 2, "model.path": str(MODEL)}
    config = resolve(file=CONFIG, options=small).config
    summary = teach(config, tmp_path, TOKENS, seed=0)
    losses = [line["loss"] for line in read_json_lines(tmp_path / "distill" / "metrics.jsonl")]
    assert summary.steps == len(losses) >= 2
    assert 0.5 < losses[0] < 3  # of random weights it would be over 10
    assert load_file(tmp_path / "distill" / "adapter" / "adapter_model.safetensors")
    rows = read_rows(tmp_path / "lessons" / "selected" / "chunk-00000.arrow", SelectionRow)
    views = load_views(LocalModel.resolve(config.model), config.views)
    assert views.remarks == []
    plain = [row.thinking_tokens for row in rows[::2]]
    needed = [len(views.encode(shortest_trace(one).thinking)) for one in islice(problems("taught", 0), len(plain))]
    assert all(tokens >= 3 * least for tokens, least in zip(plain, needed, strict=True))
