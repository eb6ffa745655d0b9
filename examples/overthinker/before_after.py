"""The rounds of a run, and two held-out questions as the base model and as the best round answered them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.inputs import count
from vpgea.config.resolve import load
from vpgea.errors import UsageError
from vpgea.phases.schedule import best_round
from vpgea.report.text import aligned
from vpgea.runs.complete_phase import chunk_paths
from vpgea.runs.history import all_lines
from vpgea.runs.layout import is_run, round_dir
from vpgea.storage.shards import iterate_rows
from vpgea_cli.commands.loop import COLUMNS, row
from vpgea_cli.main import told


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the run folder and print; needs no model."""
    parser = argparse.ArgumentParser(description="Show answers before and after a run of the loop.")
    parser.add_argument("run", type=Path, help="folder that `vpgea loop` wrote")
    parser.add_argument("--count", type=count, default=2, help="how many questions")
    options = parser.parse_args(arguments)
    if not is_run(options.run):
        why = "it is not there" if not options.run.exists() else "it has neither a configuration nor rounds"
        raise UsageError(f"{options.run} is no folder of a loop", why=why, mend="give the --output-dir of `vpgea loop`")
    print("\n".join(aligned([list(COLUMNS), *map(row, all_lines(options.run))])))
    best = best_round(options.run, load(options.run / "config.yaml"))
    if best is None:
        raise SystemExit("no round kept the base model's accuracy; nothing to show")
    before = _by_question(options.run / "base" / "eval")
    after = _by_question(round_dir(options.run, best) / "eval")
    # The first questions that both got right: what changes is the thinking, not the answer.
    both = [name for name, row in before.items() if row["status"] == after[name]["status"] == "correct"]
    for name in both[: options.count]:
        print(f"\n{before[name]['question']}")
        for label, answer in (("before", before[name]), (f"after round {best}", after[name])):
            print(f"  {label}, {len(answer['completion_ids'])} tokens: {answer['completion']}")


def _by_question(folder: Path) -> dict[str, dict[str, Any]]:
    """First sample of each question."""
    rows: dict[str, dict[str, Any]] = {}
    for sample in iterate_rows(chunk_paths(folder)):
        rows.setdefault(sample["question_id"], sample)
    return rows


if __name__ == "__main__":
    sys.exit(told(main))
