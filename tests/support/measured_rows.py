"""Rollouts and measurements written down by hand, so that selection can be tested without a model's forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.support import tiny
from vpgea.config.resolve import flat_config, resolve
from vpgea.config.schema import RunConfig, ViewsConfig
from vpgea.filtering.checks.base import Check
from vpgea.filtering.checks.registry import CHECKS
from vpgea.filtering.measurements import MEASUREMENTS, measurement_schema
from vpgea.filtering.selection import select
from vpgea.prompts.views import Views
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.records import FilterSummary
from vpgea.storage.records import read_record
from vpgea.storage.schemas import POSTERIOR, PRIOR, SAMPLES, View
from vpgea.storage.shards import iterate_rows, shard_files, table_from_rows, write_table

Row = dict[str, Any]


def made(question_id: str, view: View, index: int, /, **values: Any) -> Row:
    """A correct sample of 4 thinking tokens and 2 answer tokens with its measurements; `values` replaces any column.

    thinking, answer_length: its numbers of tokens. A posterior path has passed every check.
    """
    thinking, answer = values.pop("thinking", 4), values.pop("answer_length", 2)
    is_posterior = view == POSTERIOR
    row: Row = {
        **dict.fromkeys(MEASUREMENTS.names),
        "round": 0,
        "question_id": question_id,
        "view": view,
        "sample_index": index,
        "seed": index,
        "question": f"What is {question_id}?",
        "answer": "12",
        "options": [],
        "prompt_ids": [1, 2],
        "completion_ids": [5] * (thinking + answer),
        "logprobs": [-1.0] * (thinking + answer),
        "thinking_tokens": thinking,
        "cut_off": False,
        "finish_reason": "stop",
        "completion": "text",
        "model_fingerprint": "m",
        "template_fingerprint": "t",
        "engine": "test",
        "logprobs_of": "sampler",
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_new_tokens": 64,
        "status": "correct",
        "other_view_logprobs": [-1.0] * thinking,
        "check_tokens": 0,
        "score_tokens": 0,
    }
    if is_posterior:
        row |= {"answerability": 1.0, "answerability_valid": 8, "answerability_empty": 0.0, "answer_tokens": 2.0}
        row |= {"derivation": 1.0, "note_dependence": 0.25, "answerability_cut": 0, "log_s_cue": -0.5}
    return {**row, **values}


def prior(question_id: str, index: int, /, **values: Any) -> Row:
    return made(question_id, PRIOR, index, **values)


def posterior(question_id: str, index: int, /, **values: Any) -> Row:
    return made(question_id, POSTERIOR, index, **values)


def write_pair(
    folder: Path,
    rows: Sequence[Row],
    chunks: int = 1,
    checks: Sequence[Check] = CHECKS,
    config: RunConfig | None = None,
) -> tuple[Path, Path]:
    """A complete rollout folder and a measured filter folder of these rows, cut into chunks; config: the filter's."""
    rollout = PhaseFolder.open(folder / "rollout", Manifest(phase="rollout", identity={}, inputs={}, config={}))
    measured = PhaseFolder.open(
        folder / "filter",
        Manifest(
            phase="filter",
            identity={},
            inputs={"rollout": "r"},
            config={} if config is None else flat_config(config),
        ),
    )
    size = -(-len(rows) // chunks)
    for chunk in range(chunks):
        part = rows[chunk * size : (chunk + 1) * size]
        write_table(rollout.chunk(chunk), table_from_rows(part, SAMPLES))
        write_table(measured.chunk(chunk), table_from_rows(part, measurement_schema(checks)))
    rollout.complete({})
    measured.complete({})
    return rollout.root, measured.root


def selection(filter_dir: Path) -> dict[tuple[str, str, int], Row]:
    """Selected and rejected rows by (question, view, index); each has `selected`."""
    found = {}
    for name in ("selected", "rejected"):
        for row in iterate_rows(shard_files(filter_dir / name)):
            key = row["question_id"], row["view"], row["sample_index"]
            assert key not in found, "no row twice"
            found[key] = {**row, "selected": name == "selected"}
    return found


@cache
def views() -> Views:
    """Views of a tokenizer alone: selection renders prompts and asks no model."""
    tokenizer = tiny.make_tokenizer()
    return Views(tokenizer, ViewsConfig(), [tokenizer.eos_token_id])


def select_from(config: RunConfig, rollout: Path, measured: Path, checks: Sequence[Check] = CHECKS) -> FilterSummary:
    """Select from two complete folders."""
    folders = CompletePhase.open(rollout, "rollout"), CompletePhase.open(measured, "filter")
    return select(config, views(), *folders, checks)


def select_rows(
    folder: Path, rows: Sequence[Row], **dotted: Any
) -> tuple[FilterSummary, dict[tuple[str, str, int], Row]]:
    """Write the rows to folder/0, folder/1, ... and select from them: the summary, and `selection`."""
    config = resolve(options={key.replace("__", "."): value for key, value in dotted.items()}).config
    folders = write_pair(folder / str(len(list(folder.glob("*/filter")))), rows)
    summary = select_from(config, *folders)
    assert summary == read_record(folders[1] / "summary.json", FilterSummary)
    return summary, selection(folders[1])
