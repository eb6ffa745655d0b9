"""Every public option of every command is tried in one user's story on the testbed, and the table says so itself."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from pathlib import Path

import pytest

from examples.overthinker.before_after import main as before_after
from tests.support import overthinker
from vpgea_cli.main import run

SURFACE = Path(__file__).with_name("surface.txt")
QUESTIONS = overthinker.ROOT / "questions"
CONFIG = overthinker.ROOT / "overthinker.yaml"
LOG = Path(__file__).parents[1] / "data" / "foreign" / "lm-eval"
SERVER = "--server-url http://127.0.0.1:9 --sglang-python python3"  # finished folders ask no server
SMALL = "--set rollout.questions_per_chunk=4 --set eval.bootstrap=100 --set grading.workers=1"

# (command line, what its stdout must hold); run in this order in one folder, with CFG, MODEL, DEV and TRAIN filled in.
STORY: list[tuple[str, str]] = [
    ("--version", "."),
    ("doctor --json --quiet", '"torch"'),
    ("config init mine.yaml --json", "mine.yaml"),
    ("config init mine.yaml --objective vpg-ea --overwrite", "mine.yaml"),
    ("config show --config CFG --set rollout.seed=3 --model MODEL --dataset DEV --json", '"origin": "--set"'),
    ("config validate -c CFG --set rollout.seed=3 --model MODEL --dataset DEV --offline --json -q", '"valid": true'),
    (
        "rollout -c CFG --model MODEL --dataset DEV -n 2 --limit 8 --seed 1 --set rollout.questions_per_chunk=4 "
        "--offline --dry-run --json",
        '"questions": 8',
    ),
    (
        f"rollout -c CFG --model MODEL --dataset DEV --output-dir r --num-samples 3 --limit 8 --seed 1 {SMALL} "
        "--shard 0/1 --skip-bad-rows --resume --offline --quiet",
        "r",
    ),
    (
        f"rollout -c CFG --dataset DEV -o r --prior-samples 2 --posterior-samples 4 --limit 8 {SMALL} "
        "--overwrite --json --verbose",
        '"questions": 8',
    ),
    (f"rollout -c CFG --dataset DEV -o r --prior-samples 2 --posterior-samples 4 --limit 8 {SMALL} {SERVER} -q", "r"),
    ("filter r -o f --dry-run --json", "tokens"),
    (f"filter r --output-dir f -c CFG --model MODEL {SMALL} --max-grade-errors 0.5 --shard 0/1 --resume -q", "f"),
    (
        f"filter r -o f -c CFG {SMALL} --store-teacher-topk 16 --overwrite --offline --json --verbose",
        '"posterior_sampled": 32',
    ),
    (f"filter r -o f -c CFG {SMALL} --store-teacher-topk 16 {SERVER} --quiet", "f"),
    ("distill f -o d --dry-run --json", "steps"),
    ("distill f --output-dir d -c CFG --model MODEL --set distill.learning_rate=1e-4 --seed 5 --lora -q", "d/adapter"),
    ("distill f -o d --full --overwrite --resume --offline --json --verbose", '"output": "model"'),
    ("distill f -o t --set distill.kl_form=dense-cv --set distill.teacher=stored --lora --quiet", "t/adapter"),
    ("distill f -o a --lora --quiet", "a/adapter"),
    (
        "distill f -o o --lora --dtype float32 --devices cpu --lora-rank 4 --lora-alpha 8 --lora-target q_proj "
        "--optimizer adafactor --learning-rate 1e-4 --schedule cosine --max-tokens-per-batch 2048 "
        "--gradient-checkpointing --no-compile --log-to tensorboard -q",
        "o/adapter",
    ),
    (
        "eval -c CFG --model MODEL --dataset DEV -n 1 --limit 8 --dtype float32 --devices cpu --dry-run --json",
        '"samples": 8',
    ),
    (f"eval -c CFG --model MODEL --dataset DEV -o e0 -n 1 --limit 8 --seed 2 {SMALL} --quiet", "e0"),
    (
        f"eval --config CFG --model MODEL --adapter a/adapter --dataset DEV --output-dir e1 --num-samples 1 --limit 8 "
        f"--seed 2 {SMALL} --baseline e0 --shard 0/1 --skip-bad-rows --resume --offline --json --verbose",
        '"e3"',
    ),
    (f"eval -c CFG --model MODEL --dataset DEV -o e0 -n 1 --limit 8 --seed 2 {SMALL} {SERVER} --quiet", "e0"),
    (f"eval -c CFG --dataset DEV --evalset gsm8k -o e0 --limit 8 {SMALL} --overwrite -q", "e0"),
    (
        f"eval -c CFG --model MODEL --dataset DEV -o w --limit 8 --seed 2 {SMALL} --until-width 0.9 --max-samples 2 -q",
        "w",
    ),
    ("eval --list --json", '"protocols"'),
    ("compare e0 e0 --format csv", "accuracy"),
    ("experiment GRID -o x --shard 0/2 --dry-run --offline --json --quiet --verbose", '"runs"'),
    ("compare e0 e0 --json --quiet", '"verdict'),
    ("report e0 e0 --output report.html --plots plots --json --quiet", '"verdict"'),
    ("report e0 --format csv", "accuracy"),
    ("regrade e0 -o g --grader exact --set grading.workers=1 --offline --quiet", "g"),
    ("regrade e0 -o g --grader math --model MODEL --set grading.workers=1 --overwrite --json", '"disagreements"'),
    ("import LOG --regrade --questions sums.jsonl --dry-run --json", '"samples"'),
    ("import LOG -o i --from lm-eval --metric METRIC --max-unreadable 0.5 --resume --offline --quiet", "i"),
    (
        "import LOG --output-dir i --regrade --grader exact --metric METRIC --tokenizer MODEL --overwrite "
        "--offline --json --quiet",
        '"path"',
    ),
    ("rollout -c CFG --dataset DEV --adapter a/adapter --dtype float32 --devices cpu --dry-run --json", "samples"),
    ("filter r --adapter a/adapter --dtype float32 --devices cpu --dry-run --json", "candidates"),
    ("distill f --adapter a/adapter --lora --dry-run --json", "steps"),
    (
        f"loop -c CFG --rounds 1 --adapter a/adapter --dtype float32 --devices cpu --skip-bad-rows {SMALL} "
        "--dry-run --offline --set distill.train=lora --json",
        "rounds",
    ),
    (
        f"loop --config CFG --model MODEL --dataset TRAIN --eval-dataset DEV --output-dir l --rounds 1 "
        f"--questions-per-round 8 --num-samples 3 --limit 16 --seed 4 --keep-rounds 1 --eval-every 1 {SMALL} "
        "--objective vpg-ea --set loop.eval_limit=8 --resume --offline --quiet",
        "l",
    ),
    (
        f"loop -c CFG -o l --rounds 1 --questions-per-round 8 -n 2 --limit 16 {SMALL} --set loop.eval_limit=8 "
        "--overwrite --json --verbose",
        '"rounds"',
    ),
    (
        f"loop -c CFG -o l --rounds 1 --questions-per-round 8 -n 2 --limit 16 {SMALL} --set loop.eval_limit=8 "
        f"{SERVER} --keep-servers -q",
        "l",
    ),
    ("loop -c l/config.yaml -o l --step round-000/rollout --shard 0/1 -q", "l/round-000/rollout"),
    (f"slurm render c -c CFG {SMALL} --site SITE --offline --json", '"commands"'),
    ("doctor l --json --quiet", '"mended": 0'),
    ("doctor f --repair", "all whole"),
    ("inspect f --head 2", "filter"),
    ("inspect r --stats --json", '"prior"'),
    ("inspect f --sample dev-0000/posterior/0", "posterior"),
    ("inspect r --question dev-0000 --head 1", "dev-0000/prior/0"),
    ("inspect f --rejected derivation --head 1", "derivation"),
    ("inspect l --watch --json", '"rounds"'),
    ("inspect r --diff dev-0000/prior/0 dev-0000/prior/1 --json", '"stretches"'),
    ("export l --round 0 --output-dir x --offline --quiet", "x"),
    ("export a -o x --merge --model MODEL --overwrite --json", '"merged model"'),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("story")
    rows = [json.loads(line) for file in LOG.glob("samples_*.jsonl") for line in file.read_text().splitlines()]
    questions = {row["doc"]["question"]: row["doc"]["answer"] for row in rows}
    lines = (json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in questions.items())
    (place / "sums.jsonl").write_text("".join(lines), encoding="utf-8")
    return place


def filled(line: str) -> list[str]:
    names = {
        "CFG": CONFIG,
        "MODEL": overthinker.ROOT / "base-global",
        "DEV": QUESTIONS / "dev.jsonl",
        "TRAIN": QUESTIONS / "train.jsonl",
        "LOG": LOG,
        "GRID": overthinker.ROOT / "experiment.yaml",
        "METRIC": "exact_match,flexible-extract",
        "SITE": overthinker.ROOT.parent / "slurm" / "site.yaml",
    }
    return [str(names.get(word, word)) for word in shlex.split(line)]


# Their own tests are elsewhere: they need a real server (test_sglang_serve.py), a real SLURM (test_slurm_*.py), or a
# model that knows the words of a benchmark (test_benchmarks.py).
NEED_MORE = ("serve", "slurm submit", "slurm status", "slurm cancel", "slurm preflight")
ALSO = ("loop --launcher", "loop --site", "eval --benchmark", "eval --protocol")


def test_the_story_uses_every_option_of_every_command() -> None:
    missing = []
    for command, names in surface():
        if command in NEED_MORE:
            continue
        tried = [set(shlex.split(line)) for line, _ in STORY if line.startswith(command)]
        missing += [f"{command} {name}" for name in names if not any(words & set(name.split()) for words in tried)]
    assert [one for one in missing if not one.startswith(ALSO)] == []


def surface() -> list[tuple[str, list[str]]]:
    """(command without `vpgea`, its options; the two forms of a switch and its negation count as one)."""
    commands: list[tuple[str, list[str]]] = []
    for line in SURFACE.read_text(encoding="utf-8").splitlines():
        if line.startswith("vpgea"):
            commands.append((line.removeprefix("vpgea").strip(), []))
        elif re.match(r"  -", line):
            commands[-1][1].append(line.strip())
    return commands


@pytest.mark.parametrize("step", range(len(STORY)), ids=[" ".join(line.split()[:3]) for line, _ in STORY])
def test_story(step: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "0")  # so that what --offline sets in this process is taken back afterwards
    line, expected = STORY[step]
    assert run(filled(line)) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert expected in printed
    if "--json" in line:
        json.loads(printed)


def test_the_demo_ends_with_the_rounds_of_that_loop(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):  # said when no round of this very small loop kept the accuracy
        before_after([str(folder / "l")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("round  accuracy  tokens")
    assert [line.split()[0] for line in lines[1:3]] == ["base", "0"]
