"""Write the question files: `python -m examples.smollm2.questions build/smollm2-questions`.

A row has id, question, answer, and the steps, by which `checker` judges traces. No question stands in two files, nor in
what the model is taught with; the same seed gives the same files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from examples.smollm2.problems import Problem, Split, problems
from vpgea.storage.files import write_bytes
from vpgea_cli.main import told
from vpgea_cli.output import writing_to

SIZES: dict[Split, int] = {"train": 3000, "dev": 300, "test": 600}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, write."""
    parser = argparse.ArgumentParser(description="Write the question files of a loop.")
    parser.add_argument("folder", type=Path, help="where train.jsonl, dev.jsonl and test.jsonl go")
    parser.add_argument("--seed", type=int, default=0, help="seed of the problems")
    options = parser.parse_args(arguments)
    with writing_to(options.folder):
        options.folder.mkdir(parents=True, exist_ok=True)
        for split, size in SIZES.items():
            drawn = enumerate(islice(problems(split, options.seed), size))
            text = "".join(json.dumps(row(problem, f"{split}-{number:04}")) + "\n" for number, problem in drawn)
            write_bytes(options.folder / f"{split}.jsonl", text.encode())
    print(options.folder)


def row(problem: Problem, name: str) -> dict[str, object]:
    """A line of a question file. The level stands in the id."""
    return {
        "id": f"{name}-level{problem.level}",
        "question": problem.question,
        "answer": str(problem.answer),
        "steps": [str(step) for step in problem.steps],
    }


if __name__ == "__main__":
    sys.exit(told(main))
