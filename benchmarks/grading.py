"""Wall-clock time of grading: two workers against a plain loop over math-verify, each on the last box of a text.

    VPGEA_TEST_DATA=/path/to/data python -m benchmarks.grading --rounds 5

Sets: GSM8K (labelled outputs), MATH-500 and AIME (solutions that end in their own answer or another question's), and
formulas as in Minerva's questions (MATH's answers that are no plain numbers; half of them right, of these half spelled
otherwise). Each once as it is and once with 5 % of pathological rows. Both sides have loaded their libraries and graded
one answer before the clock starts, in processes of their own for each run.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ratios import machine, median_ratio
from vpgea.grading.base import GradeRequest
from vpgea.grading.plain import last_box
from vpgea.grading.pool import GraderPool

_NUMBER = re.compile(r"[-+]?\$?[\d.,/\s]+\\?%?|-?\\d?frac\{?\d+\}?\{?\d+\}?")
_PATHOLOGICAL = [
    ("3", r"9^{9^{9^9}}"),
    ("3", r"(10^7)!"),
    ("3", r"\sum_{k=1}^{1000000000} \frac{1}{k^3}"),
    ("1", r"\frac{1}{1+" * 1000 + "1" + "}" * 1000),
    ("5", r"\," * 20_000 + "5"),
    (r"\sqrt{2}", r"\frac{9^{9^9}}{9^{9^9}}"),
    ("7", "9" * 100_000),
    (", ".join(rf"\sqrt{{{n}}}" for n in range(60)), ", ".join(rf"\sqrt{{{n}}}" for n in reversed(range(60)))),
]


def _rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _ending_in(text: str, answer: str) -> str:
    return text.replace("\\boxed", "") + f"\n\nSo the final answer is $\\boxed{{{answer}}}$."


def _own_or_other(rows: Sequence[dict[str, Any]], chosen: random.Random, copies: int = 1) -> Iterator[GradeRequest]:
    """Solutions that end in their own answer or, every other time, in another question's."""
    for row in rows:
        for copy in range(copies):
            own = row["answer"] if (copy + len(row["question"])) % 2 else chosen.choice(rows)["answer"]
            yield GradeRequest(_ending_in(row.get("solution") or row["question"], own), row["answer"], row["question"])


def _formulas(rows: Sequence[dict[str, Any]], chosen: random.Random) -> Iterator[GradeRequest]:
    import sympy
    from math_verify import LatexExtractionConfig, parse

    config = [LatexExtractionConfig(boxed_match_priority=0)]
    answers = [row for row in rows if not _NUMBER.fullmatch(row["answer"]) and len(row["answer"]) < 120]
    for number, row in enumerate(answers):
        answer = row["answer"]
        if number % 4 == 0:
            parsed = parse(f"\\boxed{{{answer}}}", extraction_config=config)
            if parsed and isinstance(parsed[0], sympy.Expr) and answer == answer.lower():  # it lowers every letter
                answer = sympy.latex(sympy.expand(parsed[0]))
        elif number % 4 > 1:
            answer = chosen.choice(answers)["answer"]
        yield GradeRequest(_ending_in(row.get("solution") or row["question"], answer), row["answer"], row["question"])


def _sets(data: Path, size: int) -> dict[str, list[GradeRequest]]:
    chosen = random.Random(7)
    gsm8k = _rows(data / "labelled/gsm8k_openai_solutions.jsonl.gz")
    math500 = _rows(data / "math500/test.jsonl.gz")
    aime = _rows(data / "aime/aime24.jsonl.gz") + _rows(data / "aime/aime25.jsonl.gz")
    train = _rows(data / "math_train/train.jsonl.gz")
    sets = {
        "GSM8K": [
            GradeRequest(_ending_in(row["response"], row["response"].rpartition("A:")[2].strip()), row["reference"])
            for row in chosen.sample(gsm8k, size)
        ],
        "MATH-500": list(_own_or_other(math500, chosen)),
        "AIME": list(_own_or_other(aime, chosen, copies=8)),
        "formulas": list(_formulas(chosen.sample(train, 4 * size), chosen)),
    }
    return {name: rows[:size] for name, rows in sets.items()}


def _with_pathological(rows: list[GradeRequest]) -> list[GradeRequest]:
    """Every twentieth row replaced."""
    rows = list(rows)
    for number, place in enumerate(range(10, len(rows), 20)):
        gold, found = _PATHOLOGICAL[number % len(_PATHOLOGICAL)]
        rows[place] = GradeRequest(_ending_in("", found), gold)
    return rows


def loop(rows: Sequence[tuple[str, str]]) -> float:
    """Seconds that math-verify takes in the way its own readme shows, with its own time-outs."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    config = [LatexExtractionConfig(boxed_match_priority=0)]

    def grade(response: str, reference: str) -> bool:
        found = parse(f"\\boxed{{{last_box(response)}}}", extraction_config=config)
        return bool(verify(parse(f"\\boxed{{{reference}}}", extraction_config=config), found))

    grade("\\boxed{x+y}", "y+x")
    began = time.perf_counter()
    for response, reference in rows:
        try:
            grade(response, reference)
        except Exception:  # a recursion or a number of too many digits ends a row, not the loop
            continue
    return time.perf_counter() - began


def _peer(rows: Sequence[GradeRequest]) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.grading", "--loop"],
        input=json.dumps([(row.response, row.reference) for row in rows]),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def _ours(rows: Sequence[GradeRequest], workers: int) -> float:
    with GraderPool("math", relative_tolerance=1e-6, deadline_s=10.0, memory_mb=1024, workers=workers) as pool:
        pool.grade([GradeRequest("\\boxed{x+y}", "y+x")] * 8 * workers)
        began = time.perf_counter()
        pool.grade(rows)
        return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("VPGEA_TEST_DATA"), help="folder with the question sets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=400, help="of each set")
    parser.add_argument("--pathological-rows", type=int, default=120, help="of each set with pathological rows")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write every single run to this file")
    parser.add_argument("--loop", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        print(loop(json.load(sys.stdin)))
        return 0
    if not arguments.data:
        parser.error("set VPGEA_TEST_DATA or --data to the folder with the question sets")
    sets = _sets(Path(arguments.data), arguments.rows)
    sets |= {f"{name}, 5 %": _with_pathological(rows[: arguments.pathological_rows]) for name, rows in sets.items()}
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in sets}
    for number in range(arguments.rounds):
        for name, rows in sets.items():
            if number % 2:
                peer, ours = _peer(rows), _ours(rows, arguments.workers)
            else:
                ours, peer = _ours(rows, arguments.workers), _peer(rows)
            runs[name].append((ours, peer))
            print(f"round {number + 1}: {name}: {ours:.2f} s, math-verify {peer:.2f} s", flush=True)
    print(f"\n{'set':<20}{'rows':>6}{'ratio':>8}{'95 % interval':>18}{'s':>8}{'spread':>15}{'peer s':>9}{'spread':>17}")
    for name, pairs in runs.items():
        ours, peer = np.asarray(pairs).T
        ratio = median_ratio(list(peer), list(ours))
        interval, spreads = (
            f"{ratio.low:.1f} to {ratio.high:.1f}",
            [f"{x.min():.2f} to {x.max():.2f}" for x in (ours, peer)],
        )
        print(
            f"{name:<20}{len(sets[name]):>6}{ratio.value:>8.1f}{interval:>18}{np.median(ours):>8.2f}{spreads[0]:>15}"
            f"{np.median(peer):>9.2f}{spreads[1]:>17}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({**machine(), "runs": runs}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
