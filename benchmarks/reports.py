"""Time and memory of `vpgea report`, and bytes of its file, on a simulated run with real shards; no model is run.

Exit code 1 when it takes more than 30 s of a processor, a gigabyte, or 15 MB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import simulated_run as simulated
from benchmarks.ratios import machine
from vpgea.config.resolve import dump_yaml
from vpgea.filtering.measurements import MEASUREMENTS
from vpgea.runs.layout import CONFIG, RESULTS, SETS, SUMMARY, chunk_name, round_dir, round_record
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.storage.files import write_bytes, write_json
from vpgea.storage.records import json_of
from vpgea.storage.schemas import GRADED, POSTERIOR, PRIOR, SAMPLES, SELECTION, View
from vpgea.storage.shards import table_from_rows, write_table

MOST_SECONDS, MOST_MB, MOST_FILE_MB = 30.0, 1000.0, 15.0
_QUESTIONS = 40  # of a chunk
_CHUNKS = 10  # of a phase
_HELD_OUT_SAMPLES = 2
_WORDS = [f"w{number}" for number in range(2000)]

Row = dict[str, Any]


def main() -> int:
    """Write the run, report it, print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--samples", type=int, default=12, help="of a question in each view")
    parser.add_argument("--tokens", type=int, default=500, help="of a completion")
    given = parser.parse_args()
    simulated.flush_no_more()
    with tempfile.TemporaryDirectory() as folder:
        run_dir, out = Path(folder) / "run", Path(folder) / "report.html"
        write_run(run_dir, given.rounds, given.samples, given.tokens)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "vpgea_cli", "report", run_dir, "-o", out, "--quiet"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        wall, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        size = out.stat().st_size / 1e6
    seconds, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3
    samples = given.rounds * 2 * given.samples * _QUESTIONS * _CHUNKS
    print(
        f"{samples:,} samples of {given.tokens} tokens in {given.rounds} rounds: {seconds:.1f} s of a processor, "
        f"{wall:.1f} s in all, {memory:,.0f} MB, a file of {size:.1f} MB; {machine()['cpu']}"
    )
    return int(seconds > MOST_SECONDS or memory > MOST_MB or size > MOST_FILE_MB)


def write_run(run_dir: Path, rounds: int, samples: int, tokens: int) -> None:
    """A finished loop whose completions have words, log-probabilities, grades and reasons."""
    rng = np.random.default_rng(0)
    PhaseFolder.open(run_dir, simulated.manifest_of("loop"))
    write_bytes(run_dir / CONFIG, dump_yaml(simulated.run_config(rounds)).encode())
    for index in (None, *range(rounds)):
        folder = round_dir(run_dir, index)
        held_out = [list(_rows(rng, chunk, {PRIOR: _HELD_OUT_SAMPLES}, tokens)) for chunk in range(_CHUNKS)]
        _write(folder / "eval", "eval", [_table(GRADED, rows) for rows in held_out])
        figures = {} if index is None else {"e3": 1 + index / 1000}
        write_json(folder / "eval" / RESULTS, json_of(simulated.round_results(index, **figures)))
        if index is not None:
            views = {PRIOR: samples, POSTERIOR: samples}
            _write_training(folder, [list(_rows(rng, chunk, views, tokens)) for chunk in range(_CHUNKS)])
        write_json(round_record(run_dir, index), simulated.round_line(index, **figures).as_json())


def _rows(rng: np.random.Generator, chunk: int, views: Mapping[View, int], tokens: int) -> Iterator[Row]:
    keys = [
        (chunk * _QUESTIONS + number, view, index)
        for number in range(_QUESTIONS)
        for view, count in views.items()
        for index in range(count)
    ]
    for seed, (number, view, index) in enumerate(keys):
        ids = rng.integers(0, len(_WORDS), tokens).astype(np.int32)
        logprobs = -rng.random(tokens).astype(np.float32)
        luck = rng.random()
        yield {
            **simulated.VALUES,
            "question_id": f"q-{number:06d}",
            "view": view,
            "sample_index": index,
            "seed": chunk * 100_000 + seed,
            "question": f"What is {number} + 1?",
            "answer": str(number + 1),
            "completion_ids": ids,
            "completion": " ".join(_WORDS[place] for place in ids),
            "logprobs": logprobs,
            "other_view_logprobs": logprobs[: tokens // 2] - np.float32(0.3),
            "thinking_tokens": tokens // 2,
            "finish_reason": "stop",
            "status": "correct" if luck < 0.7 else "wrong",
            "extracted": str(number + 1) if luck < 0.7 else "no",
            "reasons": [] if luck < 0.5 else ["leak"] if luck < 0.75 else ["derivation"],
            "gate": 0.5,
            "advantage": 0.1,
        }


def _write_training(folder: Path, chunks: Sequence[Sequence[Row]]) -> None:
    _write(folder / "rollout", "rollout", [_table(SAMPLES, rows) for rows in chunks])
    _write(folder / "filter", "filter", [_table(MEASUREMENTS, rows) for rows in chunks])
    for name in SETS:
        (folder / "filter" / name).mkdir()
        for chunk, rows in enumerate(chunks):
            own = [row for row in rows if bool(row["reasons"]) == (name != SETS[0])]
            write_table(folder / "filter" / name / chunk_name(chunk), _table(SELECTION, own))
    write_json(folder / "filter" / SUMMARY, json_of(simulated.FILTER_SUMMARY))
    training = PhaseFolder.open(folder / "distill", simulated.manifest_of("distill"))
    write_json(folder / "distill" / SUMMARY, json_of(simulated.DISTILL_SUMMARY))
    training.complete(json_of(simulated.DISTILL_SUMMARY))


def _write(root: Path, phase: str, tables: Sequence[pa.Table]) -> None:
    folder = PhaseFolder.open(root, simulated.manifest_of(phase))
    for chunk, table in enumerate(tables):
        write_table(folder.chunk(chunk), table)
    folder.complete({"questions": _QUESTIONS * _CHUNKS})


def _table(schema: pa.Schema, rows: Sequence[Row]) -> pa.Table:
    return table_from_rows([{field.name: simulated.some_value(field, row) for field in schema} for row in rows], schema)


if __name__ == "__main__":
    sys.exit(main())
