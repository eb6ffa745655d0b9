"""The ten rows of each benchmark for which it is known what other tools ask, as data sets hold them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"
GOLDEN = DATA / "protocols" / "golden.json"
ROWS = 10
SHOTS = 12  # rows of the examples' split that stand for it

Row = dict[str, Any]


def rows_of(benchmark: str) -> list[Row]:
    """Ten rows as the hub has them; those of AIME and GPQA are made up, since theirs may not be copied."""
    if benchmark.startswith("aime"):
        return [aime_row(number) for number in range(ROWS)]
    if benchmark == "gpqa-diamond":
        return [gpqa_row(number) for number in range(ROWS)]
    file = {"gsm8k": "gsm8k_test_25", "math500": "math500_25", "mmlu-pro": "mmlu_pro_25"}[benchmark]
    with gzip.open(DATA / "questions" / f"{file}.jsonl.gz", "rt", encoding="utf-8") as packed:
        rows: list[Row] = [json.loads(line) for line in packed]
    return [row | {"problem": row["question"]} for row in rows[:ROWS]]


def aime_row(number: int) -> Row:
    """Made up; braces that templates could take for theirs, blanks at some ends."""
    text = f"Find the remainder of ${number}^{{{{{number + 3}}}}}$ by 1000, {{% as in $\\boxed{{x}}$ %}}."
    return {"problem": " " * (number % 3 == 1) + text + "\n" * (number % 2), "answer": str(number)}


def gpqa_row(number: int) -> Row:
    """Made up; blanks at some ends, as the published file has them."""
    wrong = {f"Incorrect Answer {n}": f"{number} and {n} eV{' ' * (n % 2)}" for n in (1, 2, 3)}
    question = f'{" " * (number % 3 == 1)}Which energy, in "eV", has level {number}?{chr(10) * (number % 2)}'
    field = {"High-level domain": "Physics", "Subdomain": "Quantum Mechanics"}
    return {"Record ID": f"rec{number}", "Question": question, "Correct Answer": f"{number} eV", **wrong, **field}


def shot_rows(benchmark: str) -> list[Row]:
    """Rows of the split that examples are from, one after the other of every category."""
    if benchmark == "gsm8k":
        return [{"question": f"What is {n} + 1?", "answer": f"It is <<{n}+1>>.\n#### {n + 1}"} for n in range(SHOTS)]
    categories = sorted({row["category"] for row in rows_of("mmlu-pro")})
    solved = "A: Let's think step by step. It is {}. The answer is (A)."
    return [
        {"question": f"Is it {n}?", "options": ["x ", "y"], "category": one, "cot_content": solved.format(n)}
        for n in range(6)
        for one in categories
    ]


def write_rows(path: Path, rows: list[Row]) -> Path:
    """As csv or jsonl, by the path's suffix."""
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
