"""A complete filter folder from a few made-up samples, so that training can be tested without a rollout."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.simulated_run import FILTER_SUMMARY
from vpgea.config.resolve import flat_config, resolve
from vpgea.config.schema import RunConfig, identity_of
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.storage.files import write_json
from vpgea.storage.records import json_of
from vpgea.storage.schemas import POSTERIOR, PRIOR, SELECTION, View
from vpgea.storage.shards import table_from_rows, write_table

VOCABULARY = 200  # ids below it are ordinary ones in every tiny model
Row = dict[str, Any]


def distill_config(model: Path, **dotted: Any) -> RunConfig:
    """A configuration for training `model` on one CPU thread; `__` in a name stands for the dot."""
    options = {"model.path": str(model), "model.device": "cpu", "model.threads": 1}
    return resolve(options={**options, **{key.replace("__", "."): value for key, value in dotted.items()}}).config


def sample_row(config: RunConfig, question: int, view: View, index: int, rng: random.Random, **values: Any) -> Row:
    """One row of SELECTION with ids drawn at random; `values` replaces what is given."""
    prompt = [10 + question, 20, 21, 22][: 3 + question % 2]
    thinking, answer = rng.randint(2, 7), rng.randint(1, 4)
    ids = [rng.randrange(VOCABULARY) for _ in range(thinking + answer)]
    row = {
        "round": 0,
        "question_id": f"q{question}",
        "view": view,
        "sample_index": index,
        "prompt_ids": prompt,
        "posterior_prompt_ids": [*prompt, 90, 91 + question] if view == POSTERIOR else None,
        "completion_ids": ids,
        "logprobs": [-rng.uniform(3, 8) for _ in ids],
        "thinking_tokens": thinking,
        "cut_off": False,
        "crossview_answer_ids": [rng.randrange(VOCABULARY) for _ in range(3)] if view == POSTERIOR else None,
        "status": "correct",
        "reasons": [],
        "utility": 0.5,
        "advantage": None,
        "gate": None,
        "completion": "",
        "model_fingerprint": LocalModel.resolve(config.model).fingerprint,
        "template_fingerprint": "t",
        "engine": "test",
        "logprobs_of": "sampler",
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_new_tokens": 16,
        "learnt_tokens": None,
    }
    return {**row, **values}


def sample_rows(config: RunConfig, questions: int = 3, *, seed: int = 0) -> list[Row]:
    """Three prior and three posterior samples a question; one posterior path of each is rejected."""
    rng = random.Random(seed)
    rows = []
    for question in range(questions):
        for index, advantage in enumerate((1.5, -1.0, -0.5)):
            rows.append(sample_row(config, question, PRIOR, index, rng, advantage=advantage, cut_off=index == 2))
        for index, gate in enumerate((1.25, 0.5, 0.0)):
            reasons = [] if gate else ["answerability"]
            rows.append(sample_row(config, question, POSTERIOR, index, rng, gate=gate, reasons=reasons))
    return rows


def write_selection(folder: Path, config: RunConfig, rows: Sequence[Row]) -> Path:
    """A complete filter folder holding `rows`, and its path."""
    manifest = Manifest(
        phase="filter", identity=identity_of(config, "filter"), inputs={"rows": repr(rows)}, config=flat_config(config)
    )
    phase = PhaseFolder.open(folder, manifest)
    for name, rejected in (("selected", False), ("rejected", True)):
        (folder / name).mkdir()
        kept = [row for row in rows if bool(row["reasons"]) == rejected]
        write_table(folder / name / "chunk-00000.arrow", table_from_rows(kept, SELECTION))
    phase.complete({})
    write_json(folder / "summary.json", json_of(FILTER_SUMMARY))
    return folder
