"""Small loops of the tiny model: their configuration file, and what counts when two of them are compared."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.support import tiny
from vpgea.config.resolve import dump_yaml, resolve
from vpgea.runs.layout import TIMES, Step, round_record
from vpgea.storage.files import read_json, write_json
from vpgea.storage.shards import read_table
from vpgea_cli.main import run

SMALL: dict[str, Any] = {
    "model.device": "cpu",
    "model.threads": 1,
    "rollout.prior_samples": 4,
    "rollout.posterior_samples": 4,
    "rollout.max_new_tokens": 24,
    "rollout.questions_per_chunk": 2,
    "grading.grader": "exact",
    "grading.workers": 1,
    "filter.answerability.samples": 2,
    "filter.answerability.threshold": 0.5,
    "filter.answerability.max_new_tokens": 8,
    "filter.derivation.enabled": False,
    "filter.plausibility.enabled": False,
    "distill.train": "full",
    "distill.questions_per_step": 2,
    "distill.checkpoint_every": 1,
    "distill.learning_rate": 1e-4,
    "eval.max_new_tokens": 24,
    "eval.bootstrap": 100,
    "loop.rounds": 2,
}
_TIMINGS = ("seconds", "times")


def write_config(folder: Path, model: Path, **dotted: Any) -> Path:
    """folder/loop.yaml with four questions to train on and two held out beside it; `__` stands for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        **SMALL,
        "model.path": str(model),
        "data.dataset": str(tiny.write_questions(folder / "train.jsonl", tiny.QUESTIONS[:4])),
        "loop.eval_dataset": str(tiny.write_questions(folder / "held-out.jsonl", tiny.QUESTIONS[4:])),
        **{key.replace("__", "."): value for key, value in dotted.items()},
    }
    file = folder / "loop.yaml"
    file.write_text(dump_yaml(resolve(options=options).config), encoding="utf-8")
    return file


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, the base model's first."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def as_if_measured(run_dir: Path, index: int | None, **figures: float) -> None:
    """Give a finished round other figures of its evaluation, in its line and in the record that the line is made of.

    figures: e3, accuracy and accuracy_gain, each also with _low or _high behind it.
    """
    line, results = round_record(run_dir, index), Step(index, "eval").folder(run_dir) / "results.json"
    record = read_json(results)
    for name, value in figures.items():
        metric, _, bound = name.rpartition("_") if name.endswith(("_low", "_high")) else (name, "", "value")
        record["metrics"][metric][bound] = value
    write_json(results, record)
    write_json(line, {**read_json(line), **figures})


def essence(run_dir: Path) -> dict[str, Any]:
    """Everything that a run has written, by path: bytes of shards and weights, JSON without the run's place and times.

    Two runs of the same inputs must have the same.
    """
    return {
        str(path.relative_to(run_dir)): _content(path, str(run_dir.resolve()))
        for path in sorted(run_dir.rglob("*"))
        if path.is_file() and path.name != TIMES
    }


def _content(path: Path, place: str) -> Any:
    if path.suffix not in (".json", ".jsonl", ".yaml") and path.name != "COMPLETE":
        return path.read_bytes()
    text = path.read_text(encoding="utf-8").replace(place, "RUN")
    if path.suffix == ".yaml":
        return text
    return [_timeless(json.loads(line)) for line in (text.splitlines() if path.suffix == ".jsonl" else [text])]


def _timeless(value: Any) -> Any:
    return {key: entry for key, entry in value.items() if key not in _TIMINGS} if isinstance(value, dict) else value


def sample_keys(run_dir: Path) -> dict[str, Counter[tuple[Any, ...]]]:
    """How often each sample stands in each phase folder of a run that holds shards."""
    names = ("round", "question_id", "view", "sample_index")
    found: dict[str, Counter[tuple[Any, ...]]] = {}
    for shard in sorted(run_dir.rglob("chunk-*.arrow")):
        table: pa.Table = read_table(shard, columns=names)
        phase = str(shard.relative_to(run_dir).parent)
        found.setdefault(phase, Counter()).update(tuple(row.values()) for row in table.to_pylist())
    return found


def loop(config: Path, run_dir: Path, *options: str | Path) -> int:
    """The real command line, in this process."""
    return run(["loop", "--config", str(config), "--output-dir", str(run_dir), *map(str, options)])
