"""How fast and how lean `vpgea distill` trains: against TRL's trainers, against its own padded batches, over ranks.

    python -m benchmarks.training speed --json speed.json
    python -m benchmarks.training memory --json memory.json
    python -m benchmarks.training packing --json packing.json
    python -m benchmarks.training ranks --json ranks.json
    python -m benchmarks.training prefixes
    python -m benchmarks.training floor

Every run is a fresh process on the same model of random weights and the same samples. Tokens are completion tokens that
were trained on; seconds are those of optimiser steps, without the first. `make trl` installs the peer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.ratios import Comparison, Run, interleave, machine, report, timed
from benchmarks.simulated_run import FILTER_SUMMARY
from vpgea.config.resolve import flat_config, resolve
from vpgea.config.schema import ModelConfig, RunConfig, identity_of
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.shape import ModelShape, read_shape
from vpgea.runs.layout import SUMMARY
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.storage.files import read_json, write_json
from vpgea.storage.records import json_of
from vpgea.storage.schemas import POSTERIOR, SELECTION
from vpgea.storage.shards import table_from_rows, write_table

ROOT = Path(__file__).parents[1]
PEER = Path(__file__).parent / "peers" / "trl_training.py"
_ADDRESS_SPACE = int(0.9 * psutil.virtual_memory().total)  # a process that wants more fails, and not the machine
_PROMPT, _NOTE = 60, 100  # tokens of the question, and of the question with its note


@dataclass(frozen=True)
class Sample:
    """Token ids of one posterior path under both prompts."""

    prompt_ids: list[int]
    teacher_prompt_ids: list[int]
    completion_ids: list[int]


@dataclass(frozen=True)
class Measured:
    """What one process did. peak_bytes: its largest resident set."""

    run: Run
    peak_bytes: int


def make_model(folder: Path, arguments: argparse.Namespace) -> Path:
    """A Llama of random weights; by default with the width and vocabulary of Qwen2.5-0.5B, and fewer layers."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    hidden = arguments.hidden
    config = LlamaConfig(
        vocab_size=arguments.vocabulary,
        hidden_size=hidden,
        intermediate_size=round(hidden * 4864 / 896),
        num_hidden_layers=arguments.layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 448),
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        dtype=arguments.dtype,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).to(getattr(torch, arguments.dtype)).save_pretrained(folder)
    words = {f"t{index}": index for index in range(arguments.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t3"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="t0", eos_token="t1", pad_token="t2", unk_token="t3"
    ).save_pretrained(folder)
    return folder


def draw_samples(lengths: Sequence[int], vocabulary: int) -> list[Sample]:
    """Random ids; the note stands between question and completion."""
    rng = np.random.default_rng(0)

    def ids(count: int) -> list[int]:
        return [int(one) for one in rng.integers(10, vocabulary, count)]

    samples = []
    for length in lengths:
        prompt = ids(_PROMPT)
        samples.append(Sample(prompt, prompt + ids(_NOTE - _PROMPT), [*ids(length - 1), 1]))
    return samples


def skewed_lengths(count: int, median: int, longest: int) -> list[int]:
    """Log-normal, as the lengths of reasoning are; sigma 0.8."""
    draws = np.random.default_rng(1).lognormal(np.log(median), 0.8, count)
    return [int(length) for length in draws.clip(16, longest)]


# --- one run ------------------------------------------------------------------------------------------------------


def run_vpgea(
    folder: Path, model: Path, samples: Sequence[Sample], steps: int, ranks: int = 1, **options: Any
) -> Measured:
    """`vpgea distill` over `samples`, `steps` times; options: keys of `distill`."""
    config = resolve(
        options={
            "model.path": str(model),
            "model.dtype": options.pop("dtype"),
            **{f"distill.{name}": value for name, value in options.items()},
            "distill.pg_weight": 0.0,
            "distill.reference_weight": 0.0,
            "distill.epochs": steps,
            "distill.questions_per_step": len(samples),
            "distill.checkpoint_every": 0,
        }
    ).config
    selection = write_selection(folder / "filter", config, samples)
    (folder / "config.yaml").write_text(json.dumps(config.model_dump()), encoding="utf-8")  # JSON is YAML
    words = [
        "-m",
        "vpgea_cli",
        "distill",
        str(selection),
        "-c",
        str(folder / "config.yaml"),
        "-o",
        str(folder / "out"),
        "-q",
    ]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    peak = _measure([sys.executable, *launcher, *words], folder / "log.txt")
    lines = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()][1:]
    return Measured(Run(sum(line["tokens"] for line in lines), sum(line["seconds"] for line in lines)), peak)


def run_trl(
    folder: Path,
    model: Path,
    samples: Sequence[Sample],
    steps: int,
    trainer: str,
    arguments: argparse.Namespace,
    **options: Any,
) -> Measured:
    """One of TRL's trainers on the same; options: keys of the peer script's specification."""
    folder.mkdir(parents=True)
    lines = [json.dumps(asdict(sample)) for sample in samples]
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    spec = {
        "trainer": trainer,
        "model": str(model),
        "samples": str(folder / "samples.jsonl"),
        "dtype": arguments.dtype,
        "micro_batch_size": arguments.micro_batch,
        "accumulation": -(-len(samples) // arguments.micro_batch),
        "steps": steps,
        "lora": {"rank": 16, "alpha": 32.0, "targets": "all-linear"},
        "learning_rate": 2e-5,
        "gradient_checkpointing": False,
        "threads": len(os.sched_getaffinity(0)),
        **options,
    }
    write_json(folder / "spec.json", spec)
    peak = _measure(
        [str(arguments.trl_python), str(PEER), str(folder / "spec.json"), str(folder / "result.json")],
        folder / "log.txt",
    )
    result = read_json(folder / "result.json")
    if result["failed"]:
        raise SystemExit(f"the peer failed: {result['failed']}")
    counted = result["steps"][1:]
    return Measured(Run(sum(one["tokens"] for one in counted), sum(one["seconds"] for one in counted)), peak)


def _measure(command: Sequence[str], log: Path) -> int:
    """Run a process to its end; its largest resident set in bytes (with ranks: of the largest among them)."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment, cwd=log.parent)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
        _, status, usage = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(map(str, command))} ended with {code}:\n{log.read_text()[-2000:]}")
    return usage.ru_maxrss * 1024


def write_selection(folder: Path, config: RunConfig, samples: Sequence[Sample]) -> Path:
    """A complete filter folder in which every sample is an accepted posterior path of its own question."""
    common: dict[str, Any] = {
        "round": 0,
        "view": POSTERIOR,
        "sample_index": 0,
        "cut_off": False,
        "crossview_answer_ids": None,
    }
    common |= {"status": "correct", "reasons": [], "utility": 0.5, "advantage": None, "gate": 1.0, "completion": ""}
    common |= {"template_fingerprint": "t", "engine": "none", "logprobs_of": "sampler", "temperature": 1.0}
    common |= {
        "top_p": 1.0,
        "top_k": 0,
        "max_new_tokens": 1,
        "model_fingerprint": LocalModel.resolve(config.model).fingerprint,
        "learnt_tokens": None,
    }
    rows = [
        {
            **common,
            "question_id": f"q{number:04d}",
            "prompt_ids": sample.prompt_ids,
            "posterior_prompt_ids": sample.teacher_prompt_ids,
            "completion_ids": sample.completion_ids,
            "logprobs": [-1.0] * len(sample.completion_ids),
            "thinking_tokens": len(sample.completion_ids),
        }
        for number, sample in enumerate(samples)
    ]
    manifest = Manifest(
        phase="filter",
        identity=identity_of(config, "filter"),
        inputs={"rows": str(len(rows))},
        config=flat_config(config),
    )
    phase = PhaseFolder.open(folder, manifest)
    for name, kept in (("selected", rows), ("rejected", [])):
        (folder / name).mkdir()
        write_table(folder / name / "chunk-00000.arrow", table_from_rows(kept, SELECTION))
    phase.complete({})
    write_json(folder / SUMMARY, json_of(FILTER_SUMMARY))
    return folder


# --- comparisons --------------------------------------------------------------------------------------------------


class Bench:
    """Fresh folders for every run."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self._folder, self._count = arguments, folder, 0
        # in a process of its own: a child's largest resident set begins with that of the process that starts it
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            self.model = apart.submit(make_model, folder / "model", arguments).result()
        self.samples = draw_samples(
            skewed_lengths(arguments.samples, arguments.median, arguments.longest), arguments.vocabulary
        )

    def ours(self, samples: Sequence[Sample] | None = None, **options: Any) -> Measured:
        options = {"dtype": self.arguments.dtype, "max_tokens_per_batch": self.arguments.tokens, **options}
        return run_vpgea(self._next(), self.model, samples or self.samples, self.arguments.steps + 1, **options)

    def trl(self, trainer: str, samples: Sequence[Sample] | None = None, **options: Any) -> Measured:
        steps = self.arguments.steps + 1
        return run_trl(self._next(), self.model, samples or self.samples, steps, trainer, self.arguments, **options)

    def _next(self) -> Path:
        self._count += 1
        return self._folder / f"run-{self._count:03d}"


def compare_speed(bench: Bench) -> None:
    """Tokens per second against TRL: the dense form with SDFT, the sampled form with SFT; its defaults and its best."""
    peers: dict[str, tuple[str, dict[str, Any]]] = {
        "trl sdft": ("sdft", {}),
        "trl sdft, padded per batch": ("sdft", {"sdft_options": {"steps_per_generation": 1}}),
        "trl sft": ("sft", {}),
        "trl sft, padding_free": ("sft", {"sft_options": {"padding_free": True}}),
    }
    ways: dict[str, Callable[[], Mapping[str, Run]]] = {
        f"vpgea {form}": lambda form=form: {f"vpgea {form}": bench.ours(kl_form=form).run}  # type: ignore[misc]
        for form in ("dense", "sampled")
    }
    for name, (trainer, options) in peers.items():
        ways[name] = lambda name=name, trainer=trainer, options=options: {  # type: ignore[misc]
            name: bench.trl(trainer, **options).run
        }
    comparisons = [
        Comparison(f"{form} against {name}", f"vpgea {form}", name)
        for name in peers
        for form in ("dense" if "sdft" in name else "sampled",)
    ]
    _compare(bench, ways, comparisons)


def compare_packing(bench: Bench) -> None:
    """Packed against padded batches of the same token budget, both ours."""
    ways: dict[str, Callable[[], Mapping[str, Run]]] = {
        "packed": lambda: {"packed": bench.ours().run},
        "padded": lambda: {"padded": bench.ours(packing=False).run},
    }
    _compare(bench, ways, [Comparison("packed against padded", "packed", "padded")])


def compare_prefixes(bench: Bench) -> None:
    """What computing a shared prompt once could save at most: all but one of a question's paths begin without it."""
    group, prompt = 8, bench.arguments.prompt
    whole, once = [], []
    for number, sample in enumerate(bench.samples):
        ids = (sample.prompt_ids * (prompt // len(sample.prompt_ids) + 1))[:prompt]
        short = ids if number % group == 0 else ids[:1]
        whole.append(Sample(ids, ids, sample.completion_ids))
        once.append(Sample(short, short, sample.completion_ids))
    ways: dict[str, Callable[[], Mapping[str, Run]]] = {
        "once": lambda: {"once": bench.ours(once).run},
        "each": lambda: {"each": bench.ours(whole).run},
    }
    _compare(bench, ways, [Comparison("prompts for nothing against prompts", "once", "each")])


def compare_ranks(bench: Bench) -> None:
    """Processes with one thread each, side by side."""
    os.environ["OMP_NUM_THREADS"] = "1"
    counts = (1, 2, 4) if len(os.sched_getaffinity(0)) >= 4 else (1, 2)
    ways: dict[str, Callable[[], Mapping[str, Run]]] = {
        f"{ranks} ranks": lambda ranks=ranks: {f"{ranks} ranks": bench.ours(ranks=ranks).run}  # type: ignore[misc]
        for ranks in counts
    }
    _compare(bench, ways, [Comparison(f"{ranks} ranks", f"{ranks} ranks", "1 ranks") for ranks in counts[1:]])


def _compare(bench: Bench, ways: Mapping[str, Callable[[], Mapping[str, Run]]], comparisons: list[Comparison]) -> None:
    rounds = interleave(ways, bench.arguments.rounds)
    about = {**machine(), "arguments": {name: str(value) for name, value in vars(bench.arguments).items()}}
    report(rounds, comparisons, about=about, file=bench.arguments.json)


def compare_memory(bench: Bench) -> None:
    """Largest resident set over the length of one sequence, for one step. Layers are recomputed, TRL's default."""
    rows = []
    bench.arguments.steps = 0
    for length in bench.arguments.lengths:
        samples = draw_samples([length], bench.arguments.vocabulary)
        row: dict[str, Any] = {"length": length}
        for form, trainer in (("sampled", "sft"), ("dense", "sdft")):
            row[f"vpgea {form}"] = bench.ours(samples, kl_form=form, gradient_checkpointing=True).peak_bytes
            try:
                row[f"trl {trainer}"] = bench.trl(trainer, samples, gradient_checkpointing=True).peak_bytes
            except SystemExit as error:
                row[f"trl {trainer}"] = None  # out of memory
                print(str(error)[-300:], flush=True)
        rows.append(row)
        print("  ".join(f"{name} {_cell(name, value)}" for name, value in row.items()), flush=True)
    if bench.arguments.json is not None:
        bench.arguments.json.write_text(json.dumps({**machine(), "rows": rows}, indent=2) + "\n", encoding="utf-8")


def compare_floor(bench: Bench) -> None:
    """Seconds of a step against those of its matrix products at the rate that this machine reaches with them."""
    shape, arguments = read_shape(LocalModel.resolve(ModelConfig(path=str(bench.model)))), bench.arguments
    ends = np.array([len(sample.prompt_ids) + len(sample.completion_ids) for sample in bench.samples], np.float64)
    completion = sum(len(sample.completion_ids) for sample in bench.samples)
    head = shape.vocabulary * shape.hidden
    attention = 4 * shape.layers * shape.heads * shape.head_dim * float((ends**2).sum()) / 2
    # forward, and the gradient of activations; of weights an adapter's own count for next to nothing
    flops = 2 * (2 * (shape.matmul_parameters - head) * float(ends.sum()) + 2 * head * completion + attention)
    rate = _matmul_rate(shape, arguments.dtype)
    seconds = [bench.ours(kl_form="sampled").run.seconds / arguments.steps for _ in range(arguments.rounds)]
    typical = float(np.median(seconds))
    print(f"{flops / 1e12:.2f} TFLOP a step at {rate / 1e9:.0f} GFLOP/s: {flops / rate:.2f} s at least")
    print(f"a step takes {typical:.2f} s of {sorted(round(one, 2) for one in seconds)}: {flops / rate / typical:.0%}")


def _matmul_rate(shape: ModelShape, dtype: str) -> float:
    """The best FLOP per second of the products that a step consists of: in the decoder, and with the head."""
    import torch

    best = 0.0
    for rows, columns in ((2048, shape.intermediate), (220, shape.vocabulary)):
        left, right = (torch.ones(size, shape.hidden, dtype=getattr(torch, dtype)) for size in (rows, columns))
        for _ in range(6):
            run = timed(lambda left=left, right=right: len(torch.nn.functional.linear(left, right)))  # type: ignore[misc]
            best = max(best, 2 * rows * columns * shape.hidden / run.seconds)
    return best


def _cell(name: str, value: int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if name == "length" else f"{value / 1e9:.2f} GB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = {
        "speed": compare_speed,
        "memory": compare_memory,
        "packing": compare_packing,
        "prefixes": compare_prefixes,
        "ranks": compare_ranks,
        "floor": compare_floor,
    }
    parser.add_argument("command", choices=commands)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1, help="counted optimiser steps of each run")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--median", type=int, default=300, help="of the completions' lengths")
    parser.add_argument("--longest", type=int, default=1024)
    parser.add_argument("--prompt", type=int, default=120, help="tokens of the shared prompt, for prefixes")
    parser.add_argument(
        "--lengths", type=lambda text: [int(one) for one in text.split(",")], default=[1024, 2048, 4096, 8192]
    )
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--micro-batch", type=int, default=2, help="sequences of the peer's forward pass")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of ours")
    parser.add_argument("--trl-python", type=Path, default=ROOT / ".venv-trl" / "bin" / "python")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands[arguments.command](Bench(arguments, Path(folder)))


if __name__ == "__main__":
    main()
