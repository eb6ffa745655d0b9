"""Folders and files of a finished run are lost, or stand where others of it or of another run belong.

    python -m tests.campaigns.exchanges --trials 60 --seed 1

Each file is whole in itself. `doctor` and the command that reads it next must say what is wrong, touch nothing else,
and a repair must make it again as it was, where the data are at hand. A command that says nothing must have been right:
what it leaves is then what an undisturbed run has.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaigns.damage import Say, call, checksums, is_refusal
from tests.support import tiny
from tests.support.loops import essence, write_config
from vpgea.runs.layout import OLD_LOGPROBS
from vpgea_cli.main import run

PHASES = ("rollout", "filter", "distill", "eval")
RECORDS = (
    *("round.json", "eval/results.json", "filter/summary.json", "filter/reference_lengths.json"),
    *(f"{phase}/{name}" for phase in PHASES for name in ("manifest.json", "COMPLETE")),
    *("distill/metrics.jsonl", "distill/summary.json"),
)
NAMES = (
    "../../../victim.arrow",
    "/tmp/victim.arrow",
    "..",
    "",
    "a/b.arrow",
    "a\nb.arrow",
    "\x1b[31mx.arrow",
    "\ud800.arrow",
)
FOLDERS = (
    ("0-of-1 (copy)", "1-of-1", "0-of-2", "00-of-1", "-1-of-1", "0-of-1\n", "..."),
    ("round-0001", "round-1 ", "round-١"),
)
NEXT = "loop -c CONFIG -o RUN"  # what goes on with a run looks at all of its records

# A change to a copy of the run; what was done.
Change = Callable[[Path, random.Random], str]


def swap(one: Path, other: Path) -> None:
    kept = one.with_name(f"{one.name}.kept")
    one.rename(kept)
    other.rename(one)
    kept.rename(other)


def replace(place: Path, other: Path) -> None:
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    shutil.copytree(other, place) if other.is_dir() else shutil.copy(other, place)


def _phases(place: Path) -> list[str]:
    """The phase folders of the run."""
    return sorted(str(path.relative_to(place / "run")) for path in (place / "run").glob("*/*") if path.name in PHASES)


def lost_phase(place: Path, rng: random.Random) -> str:
    name = rng.choice(_phases(place))
    shutil.rmtree(place / "run" / name)
    return f"{name} lost"


def lost_round(place: Path, rng: random.Random) -> str:
    name = rng.choice(sorted({phase.split("/")[0] for phase in _phases(place)}))
    shutil.rmtree(place / "run" / name)
    return f"{name} lost"


def lost_part(place: Path, rng: random.Random) -> str:
    name = rng.choice(_phases(place))
    name += rng.choice(["/parts", "/parts/0-of-1"])
    shutil.rmtree(place / "run" / name)
    return f"{name} lost"


def lost_set(place: Path, rng: random.Random) -> str:
    name = rng.choice([one for one in _phases(place) if one.endswith("filter")])
    name = rng.choice([f"{name}/selected", f"{name}/rejected", name.replace("filter", "distill/adapter")])
    shutil.rmtree(place / "run" / name)
    return f"{name} lost"


def exchanged_phases(place: Path, rng: random.Random) -> str:
    phase = rng.choice(PHASES)
    swap(place / "run" / "round-000" / phase, place / "run" / "round-001" / phase)
    return f"{phase} of two rounds exchanged"


def exchanged_rounds(place: Path, rng: random.Random) -> str:
    swap(place / "run" / "round-000", place / "run" / "round-001")
    return "two rounds exchanged"


def foreign_phase(place: Path, rng: random.Random) -> str:
    name = rng.choice(_phases(place))
    replace(place / "run" / name, place / "other" / name)
    return f"{name} of another run"


def foreign_round(place: Path, rng: random.Random) -> str:
    name = rng.choice(["base", "round-000", "round-001"])
    replace(place / "run" / name, place / "other" / name)
    return f"{name} of another run"


def foreign_folder(place: Path, rng: random.Random) -> str:
    """A folder within a phase."""
    inner = rng.choice(["rollout/parts", "filter/parts", "filter/selected", "filter/rejected", "distill/adapter"])
    name, source = f"round-001/{inner}", rng.choice(["other/round-001", "run/round-000"])
    replace(place / "run" / name, place / source / inner)
    return f"{name} of {source}"


def _shard(folder: Path, rng: random.Random) -> tuple[Path, Path]:
    """One with its sidecar."""
    shard = rng.choice(sorted(folder.rglob("*.arrow")))
    return shard, shard.with_suffix(".json")


def foreign_shard(place: Path, rng: random.Random) -> str:
    """The same chunk of another round or run, its sidecar with it."""
    phase = rng.choice(["rollout", "filter", "eval"])
    name, source = f"round-001/{phase}", rng.choice(["other/round-001", "run/round-000"])
    for file in _shard(place / "run" / name, rng):
        replace(file, place / source / phase / file.relative_to(place / "run" / name))
    return f"{file.relative_to(place / 'run')} of {source}"


def exchanged_shards(place: Path, rng: random.Random) -> str:
    """Two chunks of a phase, under each other's names."""
    name = rng.choice([one for one in _phases(place) if one.endswith(("rollout", "filter"))])
    part = place / "run" / name / "parts" / "0-of-1"
    for suffix in (".arrow", ".json"):
        swap(part / f"chunk-00000{suffix}", part / f"chunk-00001{suffix}")
    for number in (0, 1):
        sidecar = part / f"chunk-{number:05d}.json"
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"file": f"chunk-{number:05d}.arrow"}))
    return f"two chunks of {part.relative_to(place / 'run')} exchanged"


def exchanged_record(place: Path, rng: random.Random) -> str:
    """Of two rounds, of the same bytes excepted."""
    one, other = (place / "run" / name for name in ("round-000", "round-001"))
    name = rng.choice([name for name in RECORDS if (one / name).read_bytes() != (other / name).read_bytes()])
    swap(one / name, other / name)
    return f"{name} of two rounds exchanged"


def foreign_record(place: Path, rng: random.Random) -> str:
    names = [f"round-00{index}/{name}" for index in (0, 1) for name in RECORDS] + ["metrics.jsonl", "base/round.json"]
    one, other = (place / name for name in ("run", "other"))
    name = rng.choice([name for name in names if (one / name).read_bytes() != (other / name).read_bytes()])
    replace(one / name, other / name)
    return f"{name} of another run"


def odd_name(place: Path, rng: random.Random) -> str:
    """In a record that speaks of files."""
    run_dir, name, first = place / "run", rng.choice(NAMES), place / "run" / "round-000"
    kind = rng.choice(["shard", "file", "sidecar", "checksums", "output", "repair"])
    file = {
        "shard": first / "rollout/parts/0-of-1/COMPLETE",
        "file": first / "rollout/parts/0-of-1/COMPLETE",
        "sidecar": first / "rollout/parts/0-of-1/chunk-00000.json",
        "checksums": first / "distill/adapter/vpgea_checksums.json",
        "output": first / "distill/summary.json",
        "repair": run_dir / "repair.json",
    }[kind]
    value: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"damages": [], "aside": [name]}
    if kind in ("shard", "file"):
        shard, sidecar = next(iter(value["shards"].items()))
        value["shards"] |= {name if kind == "shard" else shard: sidecar | {"file": name}}
    elif kind != "repair":
        changes = {"sidecar": {"file": name}, "checksums": {name: "0" * 64}, "output": {"output": name}}
        value |= changes[kind]
    file.write_text(json.dumps(value))
    return f"{name!r} in {file.relative_to(run_dir)}"


def odd_folder(place: Path, rng: random.Random) -> str:
    """Beside the parts of a phase, or beside the rounds."""
    kind = rng.randrange(2)
    name, source = rng.choice(FOLDERS[kind]), ("round-000/rollout/parts/0-of-1", "round-000")[kind]
    original = place / "run" / source
    shutil.copytree(original, original.with_name(name))
    return f"{name!r} beside {source}"


KINDS: dict[str, Change] = {
    change.__name__.replace("_", " "): change
    for change in (
        *(
            lost_phase,
            lost_round,
            lost_part,
            lost_set,
            exchanged_phases,
            exchanged_rounds,
            foreign_phase,
            foreign_round,
        ),
        *(foreign_folder, foreign_shard, exchanged_shards, exchanged_record, foreign_record, odd_name, odd_folder),
    )
}


@dataclass
class Outcomes:
    """Per kind how often it was told and mended, told and not mended, or changed nothing that counts; and failures."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in KINDS})
    failures: list[str] = field(default_factory=list)


def make_runs(folder: Path, model: Path) -> Path:
    """Two loops of two rounds, of two seeds, in folder/whole. Returns the configuration of the first."""
    for name, seed in (("other", 1), ("run", 0)):
        config = write_config(folder, model, distill__train="lora", rollout__seed=seed)
        assert run(["loop", "-c", str(config), "-o", str(folder / "copy" / name), "--quiet", "--json"]) == 0
    (folder / "copy").rename(folder / "whole")
    return config


def campaign(
    config: Path,
    *,
    trials: int,
    seed: int,
    kinds: Mapping[str, Change] = KINDS,
    repairs: bool = True,
    say: Say = print,
) -> Outcomes:
    """Change one thing at a time in a copy of what `make_runs` made; look, go on, and mend it."""
    rng, result, whole = random.Random(seed), Outcomes(), config.parent / "whole"
    place = config.parent / "copy"
    shutil.copytree(whole, place)
    before = essence(place / "run")
    for trial in range(trials):
        kind = list(kinds)[trial % len(kinds)]
        what = kinds[kind](place, rng)
        outcome, failures = _trial(config, place, before, repairs=repairs)
        result.counts[kind][outcome] += 1
        result.failures += [f"trial {trial}, {kind}: {what}: {failure}" for failure in failures]
        say(f"{trial}: {kind}: {what}: {outcome}{''.join(f'; {failure}' for failure in failures)}")
        shutil.rmtree(place)
        shutil.copytree(whole, place)
    shutil.rmtree(place)
    return result


def _trial(config: Path, place: Path, before: Mapping[str, Any], *, repairs: bool) -> tuple[str, list[str]]:
    """What became of it, and what should not have."""
    failures, changed = [], checksums(config.parent)
    doctor, said = call("doctor RUN", config, place)
    if doctor and not is_refusal(doctor, said):
        failures.append(f"doctor said {said}")
    code, said = call(NEXT, config, place)
    if code and not is_refusal(code, said):
        failures.append(f"{NEXT}: {said}")
    if code and checksums(config.parent) != changed:
        failures.append(f"{NEXT} changed something and said {said}")
    if not code and doctor and essence(place / "run") == before:
        return "made again by the loop", failures
    if not doctor:
        same = {name: content for name, content in essence(place / "run").items() if name in before}
        return "nothing that counts", [*failures, *([] if same == before else ["it was taken for whole"])]
    told = "told" if code else "told by doctor alone"  # a finished loop opens no shards
    if not repairs:
        return told, failures
    code, said = call("doctor RUN --repair", config, place)
    if code:
        return told, [*failures, *([] if is_refusal(code, said) else [f"--repair: {said}"])]
    shutil.rmtree(place / "run" / "damaged", ignore_errors=True)
    if (after := essence(place / "run")) != before:
        names = sorted(name for name in {*after, *before} if after.get(name) != before.get(name))
        if any(name in after or Path(name).name != OLD_LOGPROBS for name in names):  # of a training that is complete
            failures.append(f"the repair left other content in {names[:3]}")
    return f"{told}, mended", failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        config = make_runs(Path(name), tiny.make_model(Path(name) / "model", train_steps=100))
        result = campaign(config, trials=options.trials, seed=options.seed)
    for kind, counts in result.counts.items():
        print(f"{kind}: {', '.join(f'{count} {outcome}' for outcome, count in sorted(counts.items()))}")
    print("\n".join(result.failures))
    print(f"{options.trials} trials, seed {options.seed}: {len(result.failures)} failures")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
