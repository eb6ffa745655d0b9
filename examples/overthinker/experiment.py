"""The testbed's experiment: dials x variants x seeds, each a whole loop, measured on the test questions.

    python -m examples.overthinker.experiment --output-dir runs/experiment [--dial global] [--variant full] [--seeds 3]

Every run is a folder that continues where it stopped. Prints one Markdown row per run and writes results.jsonl, with
one line for each run of the folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.detection.rounds import read_round
from examples.inputs import count, fraction
from examples.overthinker.other_questions import exempt_questions
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.phases.distill import trained_model
from vpgea.phases.evaluate import evaluate
from vpgea.phases.loop import Loop
from vpgea.phases.schedule import best_round
from vpgea.questions.load import load_questions
from vpgea.runs.layout import round_dir
from vpgea.storage.files import read_json_lines, write_bytes
from vpgea.storage.records import json_of
from vpgea_cli.main import told

HERE = Path(__file__).parent
CONFIGURATIONS = {"global": HERE / "overthinker.yaml", "local": HERE / "local.yaml"}
VARIANTS: dict[str, tuple[str, ...]] = {
    "full": (),
    "no-note-dependence": ("filter.note_dependence.enabled=false", "filter.accept_undecided=true"),
    "no-derivation": ("filter.derivation.enabled=false",),
    "answerability-alone": (
        "filter.note_dependence.enabled=false",
        "filter.derivation.enabled=false",
        "filter.leaks.enabled=false",
    ),
    "no-cross-view": (
        "filter.note_dependence.enabled=false",
        "filter.derivation.enabled=false",
        "filter.leaks.enabled=false",
        "filter.answerability.enabled=false",
    ),
    "prior-only": ("rollout.posterior_samples=0",),
}
COLUMNS = (
    *("dial", "variant", "seed", "base accuracy", "accuracy", "accuracy gain", "base tokens", "tokens", "tokens saved"),
    *("e3", "lowest dev accuracy - base", "sound share of accepted", "lowest in a round", "round"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description="Run the testbed's experiment.")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--dial", choices=CONFIGURATIONS, action="append", help="only this dial; repeatable")
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="only this variant; repeatable")
    parser.add_argument("--seeds", type=count, default=3, help="seeds 0, 1, ...")
    exempt = "share of the training questions that contain their answer"
    parser.add_argument("--exempt", type=fraction, default=0.0, help=exempt)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override the configuration")
    options = parser.parse_args(arguments)
    sets = exempt_questions(options.exempt, options.output_dir) if options.exempt else []
    sets += options.set
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS), flush=True)
    for dial in options.dial or CONFIGURATIONS:
        for variant in options.variant or VARIANTS:
            for seed in range(options.seeds):
                result = run(options.output_dir, dial, variant, seed, sets)
                record(options.output_dir / "results.jsonl", result)
                print("| " + " | ".join(cells(result)) + " |", flush=True)


def run(output_dir: Path, dial: str, variant: str, seed: int, overrides: Sequence[str]) -> dict[str, Any]:
    """One loop, then its last round and the base model on the test questions, paired."""
    seeds = (f"rollout.seed={seed}", f"distill.seed={seed}", "model.threads=1")
    config = resolve(file=CONFIGURATIONS[dial], sets=[*VARIANTS[variant], *seeds, *overrides]).config
    folder = output_dir / f"{dial}-{variant}-{seed}"
    lines = Loop.open(config, folder).run()
    last = config.loop.rounds - 1
    base = measure(config, folder / "test-base", None)
    tuned = config.model_copy(update={"model": trained_model(config, round_dir(folder, last) / "distill")})
    found = measure(tuned, folder / "test", folder / "test-base")["metrics"]
    return {
        "dial": dial,
        "variant": variant,
        "seed": seed,
        "base": base["metrics"],
        "test": found,
        "rounds": [json_of(line) for line in lines],
        "best_round": best_round(folder, config),
        "sound_share": sound_share(folder, config.loop.rounds),
    }


def record(file: Path, result: dict[str, Any]) -> None:
    """Put a run's result among those of the others, in place of what it had before."""
    known = read_json_lines(file) if file.is_file() else []
    of = ("dial", "variant", "seed")
    others = [one for one in known if [one[name] for name in of] != [result[name] for name in of]]
    write_bytes(file, "".join(json.dumps(one) + "\n" for one in [*others, result]).encode())


def measure(config: RunConfig, folder: Path, baseline: Path | None) -> dict[str, Any]:
    """Accuracy and tokens on the test questions, which no round has seen."""
    assert config.loop.eval_dataset is not None
    test = Path(config.loop.eval_dataset).with_name("test.jsonl")
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update={"dataset": str(test), "limit": None}),
            "eval": config.eval.model_copy(update={"baseline": None if baseline is None else str(baseline)}),
        }
    )
    results = evaluate(config, load_questions(config.data).questions, folder)
    assert results is not None, "an evaluation in one part is complete"
    return json_of(results)


def sound_share(folder: Path, rounds: int) -> dict[str, Any]:
    """Share of sound paths among the accepted ones and among all correct posterior paths, over all rounds.

    lowest: the smallest share among the accepted paths of one round.
    """
    by_round = [read_round(round_dir(folder, index)).posterior for index in range(rounds)]
    accepted = [[path.kind.is_sound for path in paths if not path.is_rejected] for paths in by_round]
    return {
        "accepted": _share([sound for flags in accepted for sound in flags]),
        "correct": _share([path.kind.is_sound for paths in by_round for path in paths]),
        "lowest": min((value for flags in accepted if (value := _share(flags)) is not None), default=None),
    }


def _share(flags: Sequence[bool]) -> float | None:
    return round(sum(flags) / len(flags), 4) if flags else None


def cells(result: dict[str, Any]) -> list[str]:
    """One row of the table."""
    base, test, rounds = result["base"], result["test"], result["rounds"]
    gain, saving = test["accuracy_gain"], test["token_saving"]
    dip = min(line["accuracy"] for line in rounds[1:]) - rounds[0]["accuracy"]
    sound = result["sound_share"]
    return [
        result["dial"],
        result["variant"],
        str(result["seed"]),
        f"{base['accuracy']['value']:.3f}",
        f"{test['accuracy']['value']:.3f}",
        f"{100 * gain['value']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]",
        f"{base['tokens']['value']:.1f}",
        f"{test['tokens']['value']:.1f}",
        f"{saving['value']:.0%} [{saving['low']:.0%}, {saving['high']:.0%}]",
        f"{test['e3']['value']:.2f} [{test['e3']['low']:.2f}, {test['e3']['high']:.2f}]",
        f"{100 * dip:+.1f}",
        "-" if sound["accepted"] is None else f"{sound['accepted']:.3f} (of correct: {sound['correct']:.2f})",
        "-" if sound["lowest"] is None else f"{sound['lowest']:.3f}",
        str(len(rounds) - 2),
    ]


if __name__ == "__main__":
    sys.exit(told(main))
