"""How fast vpgea samples through an SGLang server: against SGLang's own client, and against the in-process engine.

    python -m benchmarks.serving client --json client.json
    python -m benchmarks.serving engines --json engines.json

Each starts its own server on this machine and stops it. `make sglang` installs what they need.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from benchmarks.places import GSM8K, SMOLLM2, TESTBED
from benchmarks.ratios import Comparison, Run, interleave, machine, report, timed
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.engines.base import GenerateRequest, Sampling, ScoreRequest
from vpgea.engines.lease import EngineLease
from vpgea.engines.sglang.server.installation import find_python, installed_versions, isolated_environment
from vpgea.engines.sglang.server.process import ServerProcess
from vpgea.engines.sglang.traffic import wire
from vpgea.engines.sglang.traffic.endpoints import Endpoint
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.rollout import RolloutPlan, rollout
from vpgea.questions.load import load_questions
from vpgea.runs.complete_phase import chunk_paths
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import read_json, write_json
from vpgea.storage.schemas import PRIOR, SampleKey
from vpgea.storage.shards import iterate_rows

PEERS = {  # name → options of SGLang's client; the last asks the server for the same as vpgea does
    "streamed": [],
    "whole": ["--disable-stream"],
    "whole with log-probabilities": ["--disable-stream", "--return-logprob"],
}
_PEER = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module("sglang.benchmark.serving", run_name="__main__", alter_sys=True)
"""  # as `python -m`; it imports the package `datasets`, which comes from here where a server's environment has none
_STARTED, _ENDED = "Starting main benchmark run", "Serving Benchmark Result"  # what the peer prints around its work


# --- the client's overhead ----------------------------------------------------------------------------------------


def compare_clients(arguments: argparse.Namespace, folder: Path) -> None:
    """vpgea's rollout against `sglang.benchmark.serving`: same server, prompts, seeds, lengths and concurrency."""
    config = _configured(
        {
            "model.path": str(_endless_model(folder / "model")),
            "data.limit": arguments.requests,
            "rollout.prior_samples": 1,  # of so many questions: no request waits for others of its group
            "rollout.posterior_samples": 0,
            "rollout.max_new_tokens": arguments.length,
            "rollout.engine": "sglang",
            "sglang.max_concurrency": arguments.concurrency,
        }
    )
    with _serving(config, folder) as (config, endpoint):
        rows = _peer_rows(config)
        prompts, prompt_lengths = folder / "prompts.jsonl", [len(row["input_ids"]) for row in rows]
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        expected = arguments.requests * arguments.length

        def ours() -> dict[str, Run]:
            _flush(endpoint)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                run = pool.submit(draw, config, folder / "drawn").result()
            shutil.rmtree(folder / "drawn")
            assert run.tokens == expected
            return {"vpgea": run}

        def theirs(name: str) -> dict[str, Run]:
            _flush(endpoint)
            command = [*_peer_command(config, endpoint, prompts, folder / "peer.jsonl", arguments), *PEERS[name]]
            run = _run_peer(command, endpoint, folder / "peer.jsonl", prompt_lengths)
            assert run.tokens == expected
            return {name: run}

        about = _about(config, arguments)
        ways: dict[str, Callable[[], dict[str, Run]]] = {
            "vpgea": ours,
            **{name: partial(theirs, name) for name in PEERS},
        }
        rounds = interleave(ways, arguments.rounds)
    comparisons = [Comparison(f"vpgea / {name}", "vpgea", name) for name in PEERS]
    report(rounds, comparisons, about=about, file=arguments.json)


def draw(config: RunConfig, folder: Path) -> Run:
    """One rollout into shards. To be called in a process of its own, whose CPU time it tells."""
    plan = _endless_plan(config)
    with EngineLease(folder / "logs", StopRequest()) as lease:
        engine = lease.get(config, LocalModel.resolve(config.model))
        before, began = _cpu_seconds(), time.perf_counter()
        rollout(plan, folder / "rollout", lease=lease)
        return Run(engine.usage.sampled_tokens, time.perf_counter() - began, _cpu_seconds() - before)


def _endless_model(folder: Path) -> Path:
    """The testbed's model for a server that knows no end of a response, so that all have the same length."""
    shutil.copytree(TESTBED / "base-global", folder)
    for name in ("config.json", "generation_config.json"):
        write_json(folder / name, {**read_json(folder / name), "eos_token_id": None})
    return folder


def _endless_plan(config: RunConfig) -> RolloutPlan:
    plan = RolloutPlan.make(config, load_questions(config.data).questions)
    plan.views.stop_ids = ()
    return plan


def _peer_rows(config: RunConfig) -> list[dict[str, Any]]:
    """The rollout's requests in the form of the peer's `openai` data set, which adds a row's fields to the payload."""
    plan, rows = _endless_plan(config), []
    sampling = Sampling(max_new_tokens=config.rollout.max_new_tokens, stop_ids=())
    for question in (question for chunk in plan.chunks for question in chunk):
        seed = SampleKey(0, question.id, PRIOR, 0).seed(config.rollout.seed)
        request = GenerateRequest(plan.views.prior_prompt(question), seed)
        payload = wire.generate_payload(request, sampling, wire.Served(""))
        rows.append(
            {
                "messages": [{"role": "user", "content": question.text}],  # must be there; input_ids replaces it
                "max_tokens": sampling.max_new_tokens,
                "input_ids": payload["input_ids"],
                "sampling_params": {**payload["sampling_params"], "ignore_eos": True},
            }
        )
    return rows


def _peer_command(
    config: RunConfig, endpoint: Endpoint, prompts: Path, results: Path, arguments: argparse.Namespace
) -> list[str]:
    options = {
        "--backend": "sglang",
        "--base-url": endpoint.url,
        "--model": config.model.path,
        "--dataset-name": "openai",
        "--dataset-path": prompts,
        "--num-prompts": arguments.requests,
        "--max-concurrency": arguments.concurrency,
        "--warmup-requests": 0,  # they would be sent without the row's own fields; the first round warms up
        "--output-file": results,
    }
    words = [str(word) for pair in options.items() for word in pair]
    return [
        str(find_python(config.sglang)),
        "-c",
        _PEER,
        sysconfig.get_path("purelib"),
        "--disable-tqdm",
        "--output-details",
        *words,
    ]


def _run_peer(command: Sequence[str], endpoint: Endpoint, results: Path, prompt_lengths: Sequence[int]) -> Run:
    """Its own tokens and duration, and its CPU time between the lines that it prints before and after."""
    results.unlink(missing_ok=True)
    environment = {**isolated_environment(), "OPENAI_API_KEY": endpoint.api_key or "", "PYTHONUNBUFFERED": "1"}
    said, marks = [], {}
    with subprocess.Popen(
        command,
        env={**environment, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            for mark in (_STARTED, _ENDED):
                if mark in line:
                    used = psutil.Process(process.pid).cpu_times()
                    marks[mark] = used.user + used.system
        process.wait()
    if process.returncode or len(marks) < 2:
        raise SystemExit(f"the peer failed with code {process.returncode}:\n{''.join(said[-30:])}")
    result = read_json(results)
    assert result["input_lens"] == prompt_lengths, "the peer sent other prompts"
    return Run(result["total_output_tokens"], result["duration"], marks[_ENDED] - marks[_STARTED])


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# --- two engines ----------------------------------------------------------------------------------------------------


def compare_engines(arguments: argparse.Namespace, folder: Path) -> None:
    """The SGLang engine against the in-process one: the same rollout, then the same sequences scored."""
    config = _configured(_engine_options(arguments, folder))
    with _serving(config, folder) as (config, endpoint):
        plans = {
            kind: RolloutPlan.make(
                config.model_copy(update={"rollout": config.rollout.model_copy(update={"engine": kind})}),
                load_questions(config.data).questions,
            )
            for kind in ("sglang", "transformers")
        }
        with EngineLease(folder, StopRequest()) as one, EngineLease(folder, StopRequest()) as other:
            leases = {"sglang": one, "transformers": other}
            rollout(plans["transformers"], folder / "scored", lease=other)
            to_score = [
                ScoreRequest([*row["prompt_ids"], *row["completion_ids"]], len(row["prompt_ids"]))
                for row in iterate_rows(chunk_paths(folder / "scored"))
            ]

            def run(kind: str) -> dict[str, Run]:
                engine = leases[kind].get(plans[kind].config, plans[kind].model)
                _flush(endpoint)
                before = engine.usage.sampled_tokens

                def sample() -> int:
                    rollout(plans[kind], folder / "drawn", lease=leases[kind])
                    return engine.usage.sampled_tokens - before

                sampled = timed(sample)
                shutil.rmtree(folder / "drawn")
                _flush(endpoint)
                scored = timed(lambda: sum(map(len, engine.score(to_score))))
                return {f"{kind} sampled": sampled, f"{kind} scored": scored}

            about = _about(config, arguments)
            rounds = interleave({kind: partial(run, kind) for kind in leases}, arguments.rounds)
    comparisons = [
        Comparison(f"{work} tokens: sglang / transformers", f"sglang {work}", f"transformers {work}")
        for work in ("sampled", "scored")
    ]
    report(rounds, comparisons, about=about, file=arguments.json)


def _engine_options(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    options: dict[str, Any] = {"data.limit": arguments.questions, "model.threads": arguments.threads}
    if arguments.model == "overthinker":
        return options
    options |= {
        "views.template": "default",
        "views.max_prompt_tokens": 512,
        "rollout.max_new_tokens": 256,
        "eval.max_new_tokens": 256,
        "rollout.batch_size": 64,
        "sglang.max_concurrency": 64,
    }
    if arguments.model == "llama":
        return options | {"model.path": str(_random_llama(folder / "model"))}
    return options | {
        "model.path": str(SMOLLM2),
        "data.dataset": str(GSM8K),
        "views.end_of_thinking": ".",
    }


def _random_llama(folder: Path) -> Path:
    """A Llama of 57 M random weights; hardly a response ends before its cap."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.support.tiny import make_tokenizer

    tokenizer = make_tokenizer("r1")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32_000,
            hidden_size=512,
            intermediate_size=1376,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# --- both -----------------------------------------------------------------------------------------------------------


def _configured(options: dict[str, Any]) -> RunConfig:
    return resolve(file=TESTBED / "overthinker.yaml", options=options).config


@contextmanager
def _serving(config: RunConfig, folder: Path) -> Iterator[tuple[RunConfig, Endpoint]]:
    """A server of the run's model, and the configuration that uses it."""
    process = ServerProcess.start(config, folder / "server")
    try:
        process.wait_ready(lambda: None)
        process.endpoint.write(folder / "server.json")
        sglang = config.sglang.model_copy(update={"server_url": str(folder / "server.json")})
        yield config.model_copy(update={"sglang": sglang}), process.endpoint
    finally:
        process.close()


def _flush(endpoint: Endpoint) -> None:
    """Empty the server's prefix cache, so that no run finds the prompts of the one before."""
    key = {"Authorization": f"Bearer {endpoint.admin_key}"}
    request = urllib.request.Request(f"{endpoint.url}/flush_cache?timeout=30", method="POST", headers=key)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        answer.read()


def _about(config: RunConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    settings = {name: str(value) for name, value in vars(arguments).items() if name not in ("json", "compare")}
    versions = installed_versions(find_python(config.sglang))
    return {"settings": settings, "machine": machine(), "server": versions}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="client|engines")
    client = commands.add_parser("client", help="against SGLang's own benchmark client")
    client.add_argument("--rounds", type=int, default=10, help="rounds of all ways (default: 10)")
    client.add_argument("--requests", type=int, default=256, help="completions per run (default: 256)")
    client.add_argument("--length", type=int, default=192, help="tokens of every completion (default: 192)")
    client.add_argument("--concurrency", type=int, default=64, help="requests under way (default: 64)")
    client.set_defaults(compare=compare_clients)
    engines = commands.add_parser("engines", help="against the transformers engine")
    engines.add_argument("--rounds", type=int, default=5, help="rounds of both engines (default: 5)")
    engines.add_argument("--model", choices=("overthinker", "llama", "smollm2"), default="overthinker")
    engines.add_argument("--questions", type=int, default=128, help="8 samples each (default: 128)")
    engines.add_argument("--threads", type=int, help="model.threads of both (default: each engine's own)")
    engines.set_defaults(compare=compare_engines)
    for command in (client, engines):
        command.add_argument("--json", type=Path, help="write the table and every single run to this file")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="vpgea-serving-") as folder:
        arguments.compare(arguments, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
