"""What `--dry-run` says that a training needs is within 20 % of what the process then uses."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training import draw_samples, make_model, write_selection
from tests.support.forks import Forks
from vpgea.config.resolve import dump_yaml, resolve
from vpgea.estimate.phases import forecast_distill
from vpgea.runs.complete_phase import CompletePhase
from vpgea.training.data import TrainingSet

_RUN = """
import sys
from vpgea_cli.main import run
code = run(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024, file=sys.stderr)
sys.exit(code)
"""  # of the process itself: what a parent is told of its child begins with the parent's own size
CASES: dict[str, dict[str, Any]] = {
    "lora": {"lengths": [2000, 1500], "reference_weight": 0.01, "epochs": 1},
    "lora-recomputed": {"lengths": [5800], "gradient_checkpointing": True, "epochs": 1},
    "full": {"lengths": [1500, 1000], "train": "full", "epochs": 2},
}
SHAPE = argparse.Namespace(hidden=128, layers=8, vocabulary=12_000, dtype="float32")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_model(tmp_path_factory.mktemp("memory") / "model", SHAPE)
    (model / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }} {% endfor %}")
    return model


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_within_a_fifth_of_the_real_peak(case: str, model: Path, forks: Forks, tmp_path: Path) -> None:
    options = dict(CASES[case])
    lengths = options.pop("lengths")
    keys = {"pg_weight": 0.0, "reference_weight": 0.0, **options}
    config = resolve(
        options={"model.path": str(model), "model.device": "cpu", **{f"distill.{k}": v for k, v in keys.items()}}
    ).config
    selection = write_selection(tmp_path / "filter", config, draw_samples(lengths, SHAPE.vocabulary))
    (tmp_path / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
    data = TrainingSet(CompletePhase.open(selection, "filter"), config.distill)
    (estimate,) = forecast_distill(config, data).estimates  # what --dry-run prints
    process = forks.start(
        ["distill", selection, "-c", tmp_path / "config.yaml", "-q", "-o", tmp_path / "out"],
        tmp_path,
        "said",
        script=_RUN,
    )
    assert process.wait(120) == 0, process.err.read_text()
    peak = int(process.err.read_text().splitlines()[-1])
    print(f"estimated {estimate.peak_memory / 1e9:.2f} GB, used {peak / 1e9:.2f} GB")
    assert peak > 0.9e9, "too small to say anything: most of it is the program itself"
    assert estimate.peak_memory == pytest.approx(peak, rel=0.2)
