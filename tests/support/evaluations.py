"""Complete evaluation folders of samples that are written down, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.simulated_run import some_value
from vpgea.config.resolve import flat_config, resolve
from vpgea.config.schema import identity_of
from vpgea.phases.evaluate import results
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import RESULTS
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.storage.files import write_json
from vpgea.storage.records import json_of
from vpgea.storage.schemas import GRADED, PRIOR
from vpgea.storage.shards import table_from_rows, write_table


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample of a question; `seed` pairs it with that of another run. text: its question's, else of the id."""

    question: str
    correct: bool | None
    tokens: int = 10
    thinking: int = 5
    seed: int = 0
    answer: str | None = None
    at_cap: bool = False
    text: str | None = None

    def as_row(self, index: int) -> dict[str, Any]:
        status = "error" if self.correct is None else "correct" if self.correct else "wrong"
        row = {
            "question_id": self.question,
            "view": PRIOR,
            "sample_index": index,
            "seed": self.seed,
            "question": self.text or f"What is {self.question}?",
            "answer": "7",
            "completion_ids": list(range(self.tokens)),
            "logprobs": [-0.5] * self.tokens,
            "thinking_tokens": self.thinking,
            "finish_reason": "length" if self.at_cap else "stop",
            "cut_off": self.at_cap,
            "status": status,
            "extracted": self.answer,
        }
        return {field.name: some_value(field, row) for field in GRADED}


def write_evaluation(
    folder: Path,
    samples: Sequence[Sample],
    *,
    model: str = "0" * 16,
    inputs: Mapping[str, str] | None = None,
    protocol: Mapping[str, object] | None = None,
    **dotted: Any,
) -> Path:
    """An evaluation with these samples; `eval__temperature=0.5` sets a key of its configuration.

    protocol: what its identity says of one, `{"protocol.version": 2}`.
    """
    options = {"eval.bootstrap": 200} | {key.replace("__", "."): value for key, value in dotted.items()}
    config = resolve(options=options).config
    identity = {**identity_of(config, "model", "data", "views", "rollout", "grading", "eval"), "round": 0}
    identity |= protocol or {}
    own = {"model": model, "questions": "1" * 32, "template": "2" * 16, **(inputs or {})}
    part = PhaseFolder.open(folder, Manifest(phase="eval", identity=identity, inputs=own, config=flat_config(config)))
    counts: dict[str, int] = {}
    rows = []
    for sample in samples:
        counts[sample.question] = counts.get(sample.question, -1) + 1
        rows.append(sample.as_row(counts[sample.question]))
    write_table(part.chunk(0), table_from_rows(rows, GRADED))
    rejected = {"rejected_overlong": 0, "rejected_control_tokens": 0}
    assert part.complete({"questions": len(counts), **rejected})
    write_json(folder / RESULTS, json_of(results(config, CompletePhase.open(folder, "eval"), None, rejected)))
    return folder
