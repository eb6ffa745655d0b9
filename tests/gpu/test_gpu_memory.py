"""What `--dry-run` says that a training needs is within 20 % of what the device then holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training import draw_samples, make_model, write_selection
from tests.gpu.places import DEVICE, ON_CPU, command
from vpgea.config.resolve import dump_yaml, resolve
from vpgea.estimate.phases import forecast_distill
from vpgea.runs.complete_phase import CompletePhase
from vpgea.training.data import TrainingSet

pytestmark = pytest.mark.gpu
_RUN = """
import sys
from vpgea_cli.main import run
code = run(sys.argv[1:])
import torch
if torch.cuda.is_available():
    peak = torch.cuda.max_memory_allocated()
else:
    peak = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
print(peak, file=sys.stderr)
sys.exit(code)
"""
CASES: dict[str, dict[str, Any]] = {
    "lora": {"gradient_checkpointing": False},
    "lora-recomputed": {"gradient_checkpointing": True},
    "full": {"train": "full", "reference_weight": 0.0},
}
SHAPE = (
    {"hidden": 128, "layers": 8, "vocabulary": 12_000}
    if ON_CPU
    else {"hidden": 896, "layers": 24, "vocabulary": 152_000}
)
LENGTHS = (
    {"lora": [2000], "lora-recomputed": [5800], "full": [1500]} if ON_CPU else {case: [4000, 3000] for case in CASES}
)


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_within_a_fifth_of_the_peak(case: str, tmp_path: Path) -> None:
    """On a GPU of what torch holds there; Python and the context of CUDA come beside it."""
    dtype = "float32" if ON_CPU else "bfloat16"
    model = make_model(tmp_path / "model", argparse.Namespace(**SHAPE, dtype=dtype))
    (model / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }} {% endfor %}")
    keys = {"pg_weight": 0.0, "reference_weight": 0.01, "max_tokens_per_batch": 8192, "epochs": 2, **CASES[case]}
    options = {"model.path": str(model), "model.device": DEVICE, "model.dtype": dtype}
    config = resolve(options={**options, **{f"distill.{name}": value for name, value in keys.items()}}).config
    selection = write_selection(tmp_path / "filter", config, draw_samples(LENGTHS[case], SHAPE["vocabulary"]))
    (tmp_path / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
    (estimate,) = forecast_distill(
        config, TrainingSet(CompletePhase.open(selection, "filter"), config.distill)
    ).estimates
    expected = estimate.peak_memory - (0 if ON_CPU else estimate.memory["program"])
    words: list[str | Path] = ["distill", selection, "-c", tmp_path / "config.yaml", "-q", "-o", tmp_path / "out"]
    peak = int(command(tmp_path, *words, script=_RUN).splitlines()[-1])
    print(f"estimated {expected / 1e9:.2f} GB, used {peak / 1e9:.2f} GB")
    assert expected == pytest.approx(peak, rel=0.2)
