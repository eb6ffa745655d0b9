"""What one GPU does: training and sampling with 0.5 billion random weights, as a table for docs/performance.md.

    python -m benchmarks.gpu --json gpu.json
    python -m benchmarks.gpu --device cpu --small

Under ten minutes, without network. Training: optimiser steps of `vpgea distill` over paths of log-normal length, the
first step left out. Sampling: a rollout into shards, then the same sequences scored, by the transformers engine and by
SGLang where it is installed. Beside each figure stands what `--dry-run` computes. The second line shows on a CPU that
the script is right; its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.ratios import Run, machine, timed
from benchmarks.training import draw_samples, make_model, skewed_lengths, write_selection
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig, SglangConfig
from vpgea.engines.base import ScoreRequest
from vpgea.engines.lease import EngineLease
from vpgea.engines.sglang.server.installation import find_python
from vpgea.errors import UsageError
from vpgea.estimate.phases import forecast_distill, forecast_rollout, size_text
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.distill import distill
from vpgea.phases.rollout import RolloutPlan, rollout
from vpgea.questions.load import load_questions
from vpgea.runs.complete_phase import CompletePhase, chunk_paths
from vpgea.runs.layout import LOGS, METRICS
from vpgea.runs.stopping import StopRequest
from vpgea.storage.rows import read_rows
from vpgea.storage.schemas import SampleRow
from vpgea.training.data import TrainingSet

WAYS: dict[str, dict[str, Any]] = {  # of training: keys of distill
    "adapter": {},
    "adapter, padded": {"packing": False},
    "adapter, activations recomputed": {"gradient_checkpointing": True},
    "all weights": {"train": "full", "reference_weight": 0.0},
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of the work. median and longest: tokens of a path that is trained on; cap: of one that is sampled."""

    hidden: int
    layers: int
    vocabulary: int
    paths: int
    median: int
    longest: int
    steps: int
    questions: int
    samples: int
    cap: int


LARGE = Sizes(
    hidden=896,
    layers=24,
    vocabulary=151_936,
    paths=64,
    median=1500,
    longest=8192,
    steps=3,
    questions=32,
    samples=8,
    cap=256,
)
SMALL = Sizes(
    hidden=448, layers=2, vocabulary=2000, paths=4, median=100, longest=200, steps=1, questions=2, samples=2, cap=16
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A line of the table. Bytes are None where they were not measured; seconds are those of one step or pass."""

    work: str
    run: Run
    seconds: float
    estimated_seconds: float | None = None
    peak_bytes: int | None = None
    estimated_bytes: int | None = None


def trained(name: str, config: RunConfig, folder: Path, sizes: Sizes) -> Figure:
    """One way of training, in a process of its own, whose peak it tells."""
    samples = draw_samples(skewed_lengths(sizes.paths, sizes.median, sizes.longest), sizes.vocabulary)
    selection = write_selection(folder / "filter", config, samples)
    data = TrainingSet(CompletePhase.open(selection, "filter"), config.distill)
    (estimate,) = forecast_distill(config, data).estimates
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        run, peak = apart.submit(_train, config, selection, folder / "out").result()
    on_gpu = peak is not None
    return Figure(
        work=f"training, {name}",
        run=run,
        seconds=run.seconds / sizes.steps,
        estimated_seconds=estimate.seconds / config.distill.epochs,
        peak_bytes=peak,
        estimated_bytes=estimate.peak_memory - estimate.memory["program"] if on_gpu else None,
    )


def _train(config: RunConfig, selection: Path, output: Path) -> tuple[Run, int | None]:
    """Completion tokens and seconds of all steps but the first, and the most that torch held on the GPU."""
    import torch

    distill(config, selection, output)
    lines = [json.loads(line) for line in (output / METRICS).read_text(encoding="utf-8").splitlines()][1:]
    peak = torch.cuda.max_memory_allocated() if config.model.device.startswith("cuda") else None
    return Run(sum(line["tokens"] for line in lines), sum(line["seconds"] for line in lines)), peak


def sampled(kind: str, config: RunConfig, folder: Path) -> list[Figure]:
    """One engine: a rollout after that of one question, then its sequences scored. Its start is left out."""
    own = config.model_copy(update={"rollout": config.rollout.model_copy(update={"engine": kind})})
    questions = load_questions(own.data).questions
    plan = RolloutPlan.make(own, questions)
    (estimate,) = forecast_rollout(plan).estimates
    with EngineLease(folder / LOGS, StopRequest()) as lease:
        engine = lease.get(own, LocalModel.resolve(own.model))
        rollout(RolloutPlan.make(own, questions[:1]), folder / "first", lease=lease)
        before = engine.usage.sampled_tokens

        def sample() -> int:
            rollout(plan, folder / "second", lease=lease)
            return engine.usage.sampled_tokens - before

        drawn = timed(sample)
        rows = [row for path in chunk_paths(folder / "second") for row in read_rows(path, SampleRow)]
        to_score = [
            ScoreRequest([*row.prompt_ids.tolist(), *row.completion_ids.tolist()], len(row.prompt_ids)) for row in rows
        ]
        scored = timed(lambda: sum(map(len, engine.score(to_score))))
    return [
        Figure(work=f"sampling, {kind}", run=drawn, seconds=drawn.seconds, estimated_seconds=estimate.seconds),
        Figure(work=f"scoring, {kind}", run=scored, seconds=scored.seconds),
    ]


def configured(model: Path, questions: Path, device: str, sizes: Sizes, keys: Mapping[str, Any]) -> RunConfig:
    options = {
        "model.path": str(model),
        "model.device": device,
        "model.dtype": "bfloat16",
        "data.dataset": str(questions),
        "views.max_prompt_tokens": 512,
        "rollout.prior_samples": sizes.samples,
        "rollout.posterior_samples": 0,
        "rollout.max_new_tokens": sizes.cap,
        "rollout.batch_size": sizes.questions * sizes.samples,
        "eval.max_new_tokens": sizes.cap,
        "distill.pg_weight": 0.0,
        "distill.epochs": sizes.steps + 1,
        "distill.questions_per_step": sizes.paths,
        "distill.max_tokens_per_batch": 2 * sizes.longest,
        "distill.checkpoint_every": 0,
    }
    return resolve(options={**options, **{f"distill.{name}": value for name, value in keys.items()}}).config


def measured(device: str, sizes: Sizes, folder: Path) -> list[Figure]:
    """All figures, each said as soon as it is there."""
    from tests.support.tiny import make_tokenizer

    shape = argparse.Namespace(hidden=sizes.hidden, layers=sizes.layers, vocabulary=sizes.vocabulary, dtype="bfloat16")
    model = make_model(folder / "model", shape)
    make_tokenizer("r1").save_pretrained(model)
    questions = folder / "questions.jsonl"
    lines = [
        {"id": f"q{n}", "question": f"What is {n} plus {n}?", "answer": str(2 * n)} for n in range(sizes.questions)
    ]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    figures: list[Figure] = []

    def told(found: list[Figure]) -> None:
        for figure in found:
            print(f"{figure.work}: {figure.run.speed:,.0f} tokens/s", file=sys.stderr, flush=True)
        figures.extend(found)

    for number, (name, keys) in enumerate(WAYS.items()):
        config = configured(model, questions, device, sizes, keys)
        told([trained(name, config, folder / f"training-{number}", sizes)])
    config = configured(model, questions, device, sizes, {})
    told(sampled("transformers", config, folder / "transformers"))
    try:
        find_python(SglangConfig())
    except UsageError as error:
        print(f"SGLang was not measured: {error.what}", file=sys.stderr)
    else:
        told(sampled("sglang", config, folder / "sglang"))
    return figures


def table(figures: list[Figure]) -> list[str]:
    """Markdown. Memory is that of torch's tensors on the GPU; the estimate's without Python and the context of CUDA."""
    lines = ["| work | tokens/s | seconds | estimated | peak memory | estimated |", "|---|---|---|---|---|---|"]
    for one in figures:
        sizes = [_text(size_text, size) for size in (one.peak_bytes, one.estimated_bytes)]
        estimated = _text("{:.2f}".format, one.estimated_seconds)
        lines.append(f"| {one.work} | {one.run.speed:,.0f} | {one.seconds:.2f} | {estimated} | {' | '.join(sizes)} |")
    return lines


def _text(write: Any, value: float | None) -> str:
    return "-" if value is None else write(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--small", action="store_true", help="a model and work that a CPU does in a minute or two")
    parser.add_argument("--json", type=Path, help="file for every figure")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    on_gpu = arguments.device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        print(f"nothing was measured: it needs a GPU, and torch {torch.__version__} sees none")
        return 0
    about = {**machine(), "device": torch.cuda.get_device_name() if on_gpu else arguments.device}
    with tempfile.TemporaryDirectory(prefix="vpgea-gpu-") as folder:
        figures = measured(arguments.device, SMALL if arguments.small else LARGE, Path(folder))
    print("\n".join([", ".join(f"{name} {value}" for name, value in about.items()), "", *table(figures)]))
    if arguments.json is not None:
        found = {**about, "figures": [asdict(figure) for figure in figures]}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
