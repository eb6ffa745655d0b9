"""Write the question files: `python -m examples.overthinker.write_questions` (always the same files)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from examples.overthinker.language import sample_question
from vpgea.storage.files import write_bytes
from vpgea_cli.main import told

SIZES = {"train": 4000, "dev": 500, "test": 600}
FOLDER = Path(__file__).with_name("questions")

Row = dict[str, Any]  # question, answer, and options where there are any


def main(folder: Path = FOLDER) -> None:
    """Write all files."""
    write(folder, question_rows(_row))


def question_rows(draw: Callable[[Random], Row], sizes: Mapping[str, int] = SIZES) -> dict[str, list[Row]]:
    """The rows of every file, with ids. No question stands in two files, or twice in one."""
    rng, seen = Random(20240), set[str]()
    files: dict[str, list[Row]] = {}
    for name, size in sizes.items():
        rows: list[Row] = []
        while len(rows) < size:
            row = draw(rng)
            if row["question"] not in seen:
                seen.add(row["question"])
                rows.append({"id": f"{name}-{len(rows):04}", **row})
        files[name] = rows
    return files


def write(folder: Path, files: Mapping[str, Sequence[Row]]) -> None:
    """Write rows as one JSON file each."""
    for name, rows in files.items():
        write_bytes(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def _row(rng: Random) -> Row:
    question = sample_question(rng)
    return {"question": question.text, "answer": str(question.answer)}


if __name__ == "__main__":
    sys.exit(told(main))
