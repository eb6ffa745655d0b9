"""How fast the in-process engine samples and scores on a CPU: against transformers' generate, and an earlier checkout.

Every run is a process of its own, which loads the model and warms up before the clock; so is its kernel time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vpgea.config.schema import ModelConfig
from vpgea.engines.base import GenerateRequest, Sampling, ScoreRequest
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel

ENGINE, GENERATE = "engine", "generate"
_ROOT = Path(__file__).resolve().parents[1]
_NAMES, _THINGS = ["Anna", "Bo", "Chen", "Dora", "Emil"], ["apples", "books", "coins", "eggs", "stamps"]


def prompts_of(tokenizer: Any, count: int) -> list[list[int]]:
    """Ids of so many word problems of two to seven sentences, the same ones at each call."""
    draw = random.Random(0)
    texts = []
    for _ in range(count):
        name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
        steps = [
            draw.choice([f"A friend brings {n} more.", f"{name} gives {n} of them away.", f"{n} of them get lost."])
            for n in (draw.randint(2, 9) for _ in range(draw.randint(1, 6)))
        ]
        texts.append(f"{name} has {draw.randint(60, 99)} {thing}. {' '.join(steps)} How many {thing} are left?")
    return [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)["input_ids"]
        for text in texts
    ]


def run_engine(model: Any, prompts: list[list[int]], stop: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Samples of every prompt, and their scores."""
    from vpgea.engines.transformers import TransformersEngine

    engine = TransformersEngine(model, batch_size=arguments.batch_size)

    def sample(prompts: list[list[int]], cap: int) -> list[ScoreRequest]:
        requests = [
            GenerateRequest(prompt, (index * arguments.samples + copy + 1) * 0x9E3779B97F4A7C15 % 2**64)
            for index, prompt in enumerate(prompts)
            for copy in range(arguments.samples)
        ]
        drawn = engine.generate([requests], Sampling(max_new_tokens=cap, stop_ids=(stop,)))
        return [
            ScoreRequest([*requests[index].prompt_ids, *completion.ids.tolist()], len(requests[index].prompt_ids))
            for _, index, completion in drawn
        ]

    engine.score(sample(prompts[:1], 4))
    to_score: list[ScoreRequest] = []

    def work() -> int:
        to_score.extend(sample(prompts, arguments.cap))
        return sum(len(request.ids) - request.start for request in to_score)

    return {"sampled": measured(work), "scored": measured(lambda: sum(map(len, engine.score(to_score))))}


def run_generate(model: Any, prompts: list[list[int]], stop: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same with generate: padded on the left, a static cache, as many rows at a time; counted to the stop id."""
    import torch

    def sample(prompts: list[list[int]], cap: int) -> int:
        tokens, together = 0, max(1, arguments.batch_size // arguments.samples)
        for start in range(0, len(prompts), together):
            some = prompts[start : start + together]
            width = max(map(len, some))
            ids = torch.tensor([[stop] * (width - len(prompt)) + prompt for prompt in some])
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in some])
            rows = model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                top_k=0,
                max_new_tokens=cap,
                num_return_sequences=arguments.samples,
                cache_implementation="static",
                eos_token_id=stop,
                pad_token_id=stop,
            )[:, width:]
            ends = (rows == stop).int()
            tokens += int(((ends.cumsum(-1) - ends) == 0).sum())
        return tokens

    torch.manual_seed(0)
    sample(prompts[:1], 4)
    return {"sampled": measured(lambda: sample(prompts, arguments.cap))}


def measured(work: Callable[[], int]) -> dict[str, float]:
    """What work, which returns its number of tokens, took: seconds by the clock, of the program and of the kernel."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    tokens = work()
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "tokens": tokens,
        "seconds": seconds,
        "user": after.ru_utime - before.ru_utime,
        "kernel": after.ru_stime - before.ru_stime,
    }


def work_here(arguments: argparse.Namespace) -> None:
    """One run in this process; its figures as JSON."""
    local = LocalModel.resolve(
        ModelConfig(path=arguments.model, device="cpu", threads=arguments.threads, dtype=arguments.dtype)
    )
    model, tokenizer = load_model(local), local.tokenizer
    run = run_engine if arguments.work == ENGINE else run_generate
    print(json.dumps(run(model, prompts_of(tokenizer, arguments.prompts), tokenizer.eos_token_id, arguments)))


def in_a_process(arguments: argparse.Namespace, name: str, work: str, dtype: str, tree: Path) -> dict[str, Any]:
    """One run with the code of this checkout, as results by the way's name and what was done."""
    from benchmarks.ratios import Run

    numbers = ["prompts", "samples", "cap", "batch_size", "threads"]
    options = [f"--{key.replace('_', '-')}={getattr(arguments, key)}" for key in numbers]
    command = [sys.executable, __file__, f"--model={arguments.model}", f"--work={work}", f"--dtype={dtype}", *options]
    environment = {**os.environ, "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    for what, one in figures.items():
        share = one["kernel"] / (one["user"] + one["kernel"])
        print(f"  {name} {what}: {one['tokens']} tokens, {one['seconds']:.1f} s, kernel {share:.1%} of CPU time")
    return {
        f"{name} {what}": Run(one["tokens"], one["seconds"], one["user"] + one["kernel"])
        for what, one in figures.items()
    }


def compare(arguments: argparse.Namespace) -> None:
    """All ways in turns."""
    from benchmarks.ratios import Comparison, interleave, machine, report

    ways = {
        "engine": (ENGINE, "float32", _ROOT),
        "engine bfloat16": (ENGINE, "bfloat16", _ROOT),
    }
    if not arguments.without_generate:
        ways["generate"] = (GENERATE, "float32", _ROOT)
    if arguments.earlier is not None:
        ways["earlier"] = (ENGINE, "float32", arguments.earlier.resolve())
    rounds = interleave(
        {name: partial(in_a_process, arguments, name, *how) for name, how in ways.items()}, arguments.rounds
    )
    comparisons = [
        Comparison(f"{name} / {other}: {what}", f"{name} {what}", f"{other} {what}")
        for what in ("sampled", "scored")
        for name, other in (
            ("engine", "generate"),
            ("engine", "earlier"),
            ("engine bfloat16", "earlier"),
            ("engine bfloat16", "engine"),
        )
        if {f"{name} {what}", f"{other} {what}"} <= rounds[0].keys()
    ]
    settings = {key: str(value) for key, value in vars(arguments).items()}
    report(rounds, comparisons, about={"settings": settings, "machine": machine()}, file=arguments.json)
    print(f"tokens per completion: {np.mean([run['engine sampled'].tokens for run in rounds]) / _rows(arguments):.0f}")


def _rows(arguments: argparse.Namespace) -> int:
    rows: int = arguments.prompts * arguments.samples
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a model with a chat template (examples/smollm2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all ways (default: 3)")
    parser.add_argument("--prompts", type=int, default=32, help="(default: 32)")
    parser.add_argument("--samples", type=int, default=8, help="of each prompt (default: 8)")
    parser.add_argument("--cap", type=int, default=256, help="tokens of a completion at most (default: 256)")
    parser.add_argument("--batch-size", type=int, default=64, help="rows that advance together (default: 64)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    parser.add_argument("--without-generate", action="store_true", help="leave out generate, by far the slowest")
    parser.add_argument("--earlier", type=Path, help="another checkout, whose engine is measured too")
    parser.add_argument("--json", type=Path, help="write the table and every single run to this file")
    parser.add_argument("--work", choices=(ENGINE, GENERATE), help="measure this alone, in this process")
    parser.add_argument("--dtype", default="float32", help="with --work (default: float32)")
    arguments = parser.parse_args()
    if arguments.work is None:
        compare(arguments)
    else:
        work_here(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
