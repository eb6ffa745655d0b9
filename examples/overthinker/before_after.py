"""Two held-out questions as the base model and as the best round answered them: `python -m ... RUN`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vpgea.loop import best_round, round_dir
from vpgea.resolve import load
from vpgea.runs import chunk_paths
from vpgea.shards import iterate_rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the run folder and print; needs no model."""
    parser = argparse.ArgumentParser(description="Show answers before and after a run of the loop.")
    parser.add_argument("run", type=Path, help="folder that `vpgea loop` wrote")
    parser.add_argument("--count", type=int, default=2, help="how many questions")
    options = parser.parse_args(arguments)
    best = best_round(options.run, load(options.run / "config.yaml"))
    if best is None:
        raise SystemExit("no round kept the base model's accuracy; nothing to show")
    before = _by_question(options.run / "base" / "eval")
    after = _by_question(round_dir(options.run, best) / "eval")
    # The first questions that both got right: what changes is the thinking, not the answer.
    both = [name for name, row in before.items() if row["status"] == after[name]["status"] == "correct"]
    for name in both[: options.count]:
        print(f"\n{before[name]['question']}")
        for label, row in (("before", before[name]), (f"after round {best}", after[name])):
            print(f"  {label}, {len(row['completion_ids'])} tokens: {row['completion']}")


def _by_question(folder: Path) -> dict[str, dict[str, Any]]:
    """First sample of each question."""
    rows: dict[str, dict[str, Any]] = {}
    for row in iterate_rows(chunk_paths(folder)):
        rows.setdefault(row["question_id"], row)
    return rows


if __name__ == "__main__":
    main()
