"""Answers that try to be rewarded for nothing against the graders, and honest ones beside them.

    python -m tests.campaigns.probes --probes 3000 --seed 20

prints per kind how many wrong answers were graded correct and how many right ones wrong, and each of the former.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.support.answer_probes import Probe, draw_probes
from vpgea.grading.base import GradeRequest
from vpgea.grading.pool import GraderPool


@dataclass
class Tally:
    """What came of the probes: by kind how many should be refused and accepted, and those graded otherwise."""

    refusable: Counter[str] = field(default_factory=Counter)
    acceptable: Counter[str] = field(default_factory=Counter)
    accepted: list[Probe] = field(default_factory=list)
    refused: list[Probe] = field(default_factory=list)
    undecided: list[Probe] = field(default_factory=list)


def campaign(probes: int, seed: int, workers: int = 1) -> Tally:
    """Grade so many probes."""
    tally = Tally()
    drawn = draw_probes(probes, seed)
    for grader in ("math", "choice"):
        chosen = [probe for probe in drawn if probe.grader == grader]
        with GraderPool(grader, relative_tolerance=1e-6, deadline_s=10.0, memory_mb=1024, workers=workers) as pool:
            grades = pool.grade([GradeRequest(probe.response, probe.gold, probe.question) for probe in chosen])
        for probe, grade in zip(chosen, grades, strict=True):
            (tally.refusable if probe.right == "wrong" else tally.acceptable)[probe.kind] += 1
            if not grade.status.valid:
                tally.undecided.append(probe)
            elif grade.status != probe.right:
                (tally.accepted if probe.right == "wrong" else tally.refused).append(probe)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probes", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--failures", type=Path, help="append those that were graded otherwise to this jsonl file")
    arguments = parser.parse_args()
    tally = campaign(arguments.probes, arguments.seed, arguments.workers)
    accepted, refused = (Counter(probe.kind for probe in probes) for probes in (tally.accepted, tally.refused))
    print(f"seed {arguments.seed}\n{'kind':<32}{'wrong':>7}{'accepted':>10}{'right':>7}{'refused':>9}")
    for kind in tally.refusable:
        print(f"{kind:<32}{tally.refusable[kind]:>7}{accepted[kind]:>10}{tally.acceptable[kind]:>7}{refused[kind]:>9}")
    print(f"without a grade: {len(tally.undecided)}")
    for probe in tally.accepted:
        print(f"accepted: {probe.kind}: {probe.question!r}, reference {probe.gold!r}: {probe.response!r}")
    if arguments.failures:
        with arguments.failures.open("a", encoding="utf-8") as file:
            for probe in (*tally.accepted, *tally.refused, *tally.undecided):
                file.write(json.dumps(asdict(probe)) + "\n")
    return 1 if tally.accepted or tally.undecided else 0


if __name__ == "__main__":
    sys.exit(main())
