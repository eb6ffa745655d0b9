"""How far the math grader agrees with labelled outputs, and how fast it is.

    VPGEA_TEST_DATA=/path/to/data python benchmarks/grading_agreement.py --disagreements disagreements.jsonl

Sets: labelled outputs of GSM8K and MATH models, MATH-500's references against themselves, and the test cases of
other graders (`policy` rows, whose expectation is a matter of format, are shown apart).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.pool import GraderPool

Case = tuple[GradeRequest, bool, dict[str, Any]]


@dataclass(frozen=True)
class LabelledSet:
    name: str
    file: str
    read: Callable[[dict[str, Any]], Case | None]


def labelled(row: dict[str, Any]) -> Case:
    return GradeRequest(row["response"], row["reference"], row["question"]), row["label"], row


def math500(row: dict[str, Any]) -> Case:
    return GradeRequest(f"\\boxed{{{row['answer']}}}", row["answer"], row["question"]), True, row


def as_request(row: dict[str, Any]) -> GradeRequest:
    """A bare prediction is put into a box; a text stays as it is."""
    bare = row["kind"] == "answer-vs-answer"
    return GradeRequest(f"\\boxed{{{row['prediction']}}}" if bare else row["prediction"], row["gold"])


def grader_case(row: dict[str, Any]) -> Case | None:
    return None if row.get("policy") else (as_request(row), row["expected"], row)


def policy_case(row: dict[str, Any]) -> Case | None:
    return (as_request(row), row["expected"], row) if row.get("policy") else None


SETS = [
    LabelledSet("gsm8k_openai_solutions", "labelled/gsm8k_openai_solutions.jsonl.gz", labelled),
    LabelledSet("qwen25math_rm_example", "labelled/qwen25math_rm_example.jsonl.gz", labelled),
    LabelledSet("math500 against itself", "math500/test.jsonl.gz", math500),
    LabelledSet("grader_cases", "grader_cases/cases.jsonl", grader_case),
    LabelledSet("grader_cases, policy", "grader_cases/cases.jsonl", policy_case),
]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def disagreement(which: LabelledSet, request: GradeRequest, expected: bool, grade: Grade, row: dict[str, Any]) -> str:
    return json.dumps(
        {
            "set": which.name,
            "id": row["id"],
            "expected": "correct" if expected else "wrong",
            "status": grade.status,
            "reference": request.reference,
            "extracted": grade.extracted,
            "source": grade.source,
            "detail": grade.detail,
            "response_end": request.response[-300:],
        },
        ensure_ascii=False,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("VPGEA_TEST_DATA"), help="folder with the labelled sets")
    parser.add_argument("--disagreements", type=Path, help="write every disagreement to this jsonl file")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("set VPGEA_TEST_DATA or --data to the folder with the labelled sets")
    print(f"{'set':<26}{'rows':>6}{'agree':>7}{'%':>8}{'timeout':>9}{'error':>7}{'rows/s':>9}")
    disagreements: list[str] = []
    with GraderPool(
        "math", relative_tolerance=1e-6, deadline_s=10.0, memory_mb=1024, workers=arguments.workers
    ) as pool:
        pool.grade([GradeRequest("\\boxed{1}", "1")] * arguments.workers)  # starting workers is not grading
        for which in SETS:
            cases = [case for row in rows(Path(arguments.data) / which.file) if (case := which.read(row))]
            begin = time.perf_counter()
            grades = pool.grade([request for request, _, _ in cases])
            seconds = time.perf_counter() - begin
            wrong = [
                disagreement(which, request, expected, grade, row)
                for (request, expected, row), grade in zip(cases, grades, strict=True)
                if grade.status is not (Status.CORRECT if expected else Status.WRONG)
            ]
            disagreements += wrong
            agree, statuses = len(cases) - len(wrong), [grade.status for grade in grades]
            print(
                f"{which.name:<26}{len(cases):>6}{agree:>7}{100 * agree / len(cases):>8.2f}"
                f"{statuses.count(Status.TIMEOUT):>9}{statuses.count(Status.ERROR):>7}{len(cases) / seconds:>9.0f}"
            )
    if arguments.disagreements:
        arguments.disagreements.write_text("".join(f"{line}\n" for line in disagreements), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
