"""Bytes per completion token of real shards, by the length of a completion.

One chunk of 4 questions with 8 + 8 samples each, prompts of 100 tokens (200 with the note), random ids and
log-probabilities, and text of so many bytes per token, written with the schemas that the phases use.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.simulated_run import some_value
from vpgea.filtering.measurements import MEASUREMENTS
from vpgea.storage.schemas import POSTERIOR, PRIOR, SAMPLES, SELECTION, TEACHER
from vpgea.storage.shards import table_from_rows, write_table
from vpgea.storage.sizes import TEXT_BYTES

QUESTIONS, SAMPLES_EACH = 4, 8
_VOCABULARY = 151_936
_SHARDS = {"rollout": SAMPLES, "measurements": MEASUREMENTS, "selected or rejected": SELECTION, "teacher": TEACHER}


def rows_of(schema: pa.Schema, tokens: int, text_bytes: float, top_k: int) -> list[dict[str, Any]]:
    """One row per sample; of a teacher's shard per posterior sample, the only ones it has."""
    rng = np.random.default_rng(0)

    def ids(count: int) -> np.ndarray:
        return rng.integers(_VOCABULARY, size=count, dtype=np.int32)

    def logprobs(count: int) -> np.ndarray:
        return -rng.random(count, dtype=np.float32)

    def row(question: int, view: str) -> dict[str, Any]:
        is_posterior = view == POSTERIOR
        return {
            "question_id": f"q-{question:016x}",
            "view": view,
            "question": "x" * 400,
            "answer": "1234",
            "prompt_ids": ids(200 if is_posterior else 100),
            "posterior_prompt_ids": ids(200) if is_posterior else None,
            "completion_ids": ids(tokens),
            "logprobs": logprobs(tokens),
            "completion": "x" * round(tokens * text_bytes),
            "other_view_logprobs": logprobs(tokens),
            "crossview_answer_ids": ids(200) if is_posterior else None,
            "top_ids": ids(tokens * top_k),
            "top_logprobs": logprobs(tokens * top_k),
            "model_fingerprint": "0" * 16,
            "template_fingerprint": "0" * 16,
        }

    views = (POSTERIOR,) if schema is TEACHER else (PRIOR, POSTERIOR)
    rows = [row(question, view) for question in range(QUESTIONS) for view in views for _ in range(SAMPLES_EACH)]
    return [{field.name: some_value(field, row) for field in schema} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1000, 4000, 16000], help="of a completion")
    parser.add_argument("--text-bytes", type=float, default=TEXT_BYTES, help="of text per token")
    parser.add_argument("--top-k", type=int, default=64, help="the teacher's tokens per position")
    options = parser.parse_args()
    print(f"{'bytes per token of a shard of':<32}" + "".join(f"{tokens:>9,}" for tokens in options.tokens))
    with tempfile.TemporaryDirectory() as folder:
        for name, schema in _SHARDS.items():
            cells = ""
            for tokens in options.tokens:
                rows = rows_of(schema, tokens, options.text_bytes, options.top_k)
                path = Path(folder) / f"{name}-{tokens}.arrow"
                cells += f"{write_table(path, table_from_rows(rows, schema)).bytes / len(rows) / tokens:>9.2f}"
                path.unlink()
            print(f"{name:<32}{cells}", flush=True)


if __name__ == "__main__":
    main()
