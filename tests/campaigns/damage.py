"""One file of a finished run after another is damaged at random, and what reads it must say so and touch nothing.

    python -m tests.campaigns.damage --trials 300 --seed 1

prints per kind of file how often the damage was told, how often the file still said the same (a byte of white space
was hit), how often it said something else that nothing can know, for want of a checksum (a digit or a letter in a value
that the command may not even have read), and every failure.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tests.support import tiny
from tests.support.loops import write_config
from vpgea.config.resolve import load, loads
from vpgea.errors import Stopped, UsageError
from vpgea.phases.distill import distill
from vpgea.runs.layout import TIMES
from vpgea.runs.stopping import StopRequest
from vpgea_cli.main import run

Say = Callable[[str], None]
_TOLD, _HARMLESS, _UNSEEN = "told", "harmless", "not seen"


@dataclass(frozen=True)
class Kind:
    """Files of one kind and the commands that read them. Those with a checksum must never be taken for whole."""

    pattern: str
    commands: tuple[str, ...]
    has_checksum: bool = True


# RUN: a loop's folder; STOPPED: a distillation stopped amid its steps; OUT: a new place; CONFIG: the configuration.
_ROLLOUT = ("doctor RUN", "inspect ROLLOUT --stats", "filter ROLLOUT -o OUT")
_FILTER = ("doctor RUN", "doctor FILTER", "inspect FILTER --stats", "distill FILTER -o OUT")
_EVAL = ("doctor RUN", "inspect EVAL --stats", "eval -c CONFIG --dataset HELD --baseline EVAL -o OUT")
_WEIGHTS = ("doctor RUN", "export RUN --round 0 -o OUT", "eval -c CONFIG --dataset HELD --adapter ADAPTER -o OUT")
_RESUMED = "rollout -c CONFIG -o ROLLOUT"
_LOOP = ("doctor RUN", "loop -c CONFIG -o RUN")
KINDS = {
    "shard of a rollout": Kind("run/round-000/rollout/parts/*/*.arrow", _ROLLOUT),
    "sidecar of a rollout": Kind("run/round-000/rollout/parts/*/chunk-*.json", (*_ROLLOUT, _RESUMED)),
    "shard of a filter": Kind("run/round-000/filter/parts/*/chunk-*.arrow", ("doctor RUN", "doctor FILTER")),
    "selected shard": Kind("run/round-000/filter/*ed/*.arrow", _FILTER),
    "sidecar of a selected shard": Kind("run/round-000/filter/*ed/*.json", _FILTER),
    "shard of an evaluation": Kind("run/base/eval/parts/*/*.arrow", _EVAL),
    "checkpoint": Kind("stopped/parts/*/checkpoints/*/*", ("doctor STOPPED", "distill FILTER -o STOPPED -c CONFIG")),
    "log-probabilities of a training": Kind(
        "stopped/parts/*/old_logprobs.safetensors", ("doctor STOPPED", "distill FILTER -o STOPPED -c CONFIG")
    ),
    "adapter": Kind("run/round-000/distill/adapter/adapter_*", _WEIGHTS),
    "checksums of an adapter": Kind("run/round-000/distill/adapter/vpgea_checksums.json", ("doctor RUN",), False),
    "manifest of a part": Kind("run/round-000/rollout/parts/*/manifest.json", ("doctor RUN", _RESUMED), False),
    "manifest of a phase": Kind("run/round-000/rollout/manifest.json", _ROLLOUT, False),
    "manifest of a run": Kind("run/parts/*/manifest.json", _LOOP, False),
    "COMPLETE of a part": Kind("run/round-000/rollout/parts/*/COMPLETE", (*_ROLLOUT, _RESUMED), False),
    "COMPLETE of a phase": Kind("run/round-000/rollout/COMPLETE", ("doctor RUN",), False),
    "summary.json": Kind("run/round-000/filter/summary.json", _FILTER, False),
    "results.json": Kind("run/round-000/eval/results.json", ("doctor RUN", "inspect TUNED"), False),
    "round.json": Kind("run/*/round.json", (*_LOOP, "inspect RUN", "export RUN -o OUT"), False),
    "config.yaml": Kind("run/config.yaml", ("doctor RUN", "inspect RUN", "export RUN -o OUT"), False),
}


@dataclass
class Campaign:
    """Outcomes per kind of file, and what should not have happened."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in KINDS})
    failures: list[str] = field(default_factory=list)


def make_run(folder: Path, model: Path) -> Path:
    """A loop of one round and a distillation that was stopped after its first step, in folder/copy, which is then
    copied to folder/whole: what is written records where it is. Returns the configuration."""
    config = write_config(folder, model, distill__train="lora", loop__rounds=1)
    copy = folder / "copy"
    with redirect_stdout(io.StringIO()):
        assert run(["loop", "-c", str(config), "-o", str(copy / "run"), "--quiet"]) == 0
    stop = StopRequest()
    stop.request("the campaign")
    with suppress(Stopped):
        distill(load(config), copy / "run/round-000/filter", copy / "stopped", stop=stop)
    copy.rename(folder / "whole")
    return config


def campaign(config: Path, *, trials: int, seed: int, say: Say = print) -> Campaign:
    """Damage one file at a time in a copy of what `make_run` made, run one command that reads it, and mend it again."""
    rng, result = random.Random(seed), Campaign()
    folder = config.parent
    place = folder / "copy"
    shutil.copytree(folder / "whole", place)
    whole = checksums(place)
    say(f"{len(whole)} files; seed {seed}")
    for trial in range(trials):
        name = list(KINDS)[trial % len(KINDS)]
        kind = KINDS[name]
        file = rng.choice(sorted(path for path in place.glob(kind.pattern) if path.is_file()))
        before = file.read_bytes()
        how, after = damage(before, rng)
        file.write_bytes(after)
        command = rng.choice(kind.commands)
        code, told = call(command, config, place)
        if code:
            file.write_bytes(before)
        same = _parsed(file, before) == _parsed(file, after)
        result.outcomes[name][_TOLD if code else _HARMLESS if same else _UNSEEN] += 1
        label = f"trial {trial}: {file.relative_to(place)}, {how}; {command}: {code}"
        wrong = _wrong(kind, file, before, after, code, told)
        if code and checksums(place) != whole:
            wrong = "something else was changed"
        if wrong:
            result.failures.append(f"{label}: {wrong}\n{told}")
            say(result.failures[-1])
        if code == 0 or wrong:
            shutil.rmtree(place)
            shutil.copytree(folder / "whole", place)
        shutil.rmtree(folder / "out", ignore_errors=True)
    shutil.rmtree(place)
    return result


def damage(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One of the ways in which files are damaged."""
    how = rng.choice(["start", "middle", "end", "empty", "bit", "cut by one", "cut in half"])
    size = len(content)
    if how == "empty":
        return how, b""
    if how == "cut by one":
        return how, content[:-1]
    if how == "cut in half":
        return how, content[: size // 2]
    if how == "bit":
        place, bit = rng.randrange(size), rng.randrange(8)
        return f"bit {bit} of byte {place}", content[:place] + bytes([content[place] ^ (1 << bit)]) + content[
            place + 1 :
        ]
    length = min(16, size)
    place = {"start": 0, "middle": (size - length) // 2, "end": size - length}[how]
    return how, content[:place] + rng.randbytes(length) + content[place + length :]


def call(command: str, config: Path, place: Path) -> tuple[int, str]:
    """The exit code of a command line and all that it said."""
    first = place / "run" / "round-000"
    names = {
        "RUN": place / "run",
        "STOPPED": place / "stopped",
        "ROLLOUT": first / "rollout",
        "FILTER": first / "filter",
        "TUNED": first / "eval",
        "ADAPTER": first / "distill" / "adapter",
        "EVAL": place / "run" / "base" / "eval",
        "OUT": config.parent / "out",
        "CONFIG": config,
        "HELD": config.parent / "held-out.jsonl",
    }
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run([str(names.get(word, word)) for word in command.split()])
    return code, out.getvalue() + err.getvalue()


def checksums(folder: Path) -> dict[str, str]:
    """Of every file by path, the times of attempts excepted: a refused one took time, too."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != TIMES]
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def _wrong(kind: Kind, file: Path, before: bytes, after: bytes, code: int, told: str) -> str:
    """What is wrong with how a command met a damaged file; empty when nothing is."""
    if code == 0 and not _is_bug(told):
        same = _parsed(file, before) == _parsed(file, after)
        if not same and (kind.has_checksum or _parsed(file, after) is None):
            return "it was taken for whole"
        return ""
    return "" if is_refusal(code if kind.has_checksum or code != 3 else 2, told) else "no refusal of three lines"


def is_refusal(code: int, told: str) -> bool:
    """Whether a command has left with three lines that say what is damaged."""
    last = [line.split(":")[0] for line in told.splitlines()[-3:]]
    return code == 2 and last == ["error", "why", "mend"] and not _is_bug(told)


def _is_bug(told: str) -> bool:
    return "Traceback" in told or "a bug in vpgea" in told


def _parsed(file: Path, content: bytes) -> object:
    """What a JSON or YAML file says; None when it cannot be read, or is none: then every byte counts."""
    try:
        if file.suffix == ".yaml":
            return loads(content.decode())
        value = json.loads(content) if file.suffix != ".arrow" else None
        return value if isinstance(value, dict) else None
    except (ValueError, UsageError):
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        config = make_run(Path(name), tiny.make_model(Path(name) / "model", train_steps=100))
        result = campaign(config, trials=options.trials, seed=options.seed)
    for kind, outcomes in result.outcomes.items():
        print(f"{kind}: {', '.join(f'{outcomes[name]} {name}' for name in (_TOLD, _HARMLESS, _UNSEEN))}")
    print(f"{options.trials} trials, seed {options.seed}: {len(result.failures)} failures")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
