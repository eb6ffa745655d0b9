"""A look at the lessons: `python -m examples.smollm2.look --model build/smollm2`.

Prints a question with its two lessons, then a line of JSON for each view: tokens, how many times longer than needed the
thinking is, the shares of labels, and how often the checker agrees with how a trace was made.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from random import Random
from statistics import fmean

from examples.inputs import count
from examples.smollm2.checker import Steps, label
from examples.smollm2.problems import Problem, problems
from examples.smollm2.traces import Trace, posterior_trace, prior_trace, shortest_trace
from vpgea.config.schema import ModelConfig
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.tokenizer import encode
from vpgea_cli.main import told


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, draw, print."""
    parser = argparse.ArgumentParser(description="Look at what a model is taught.")
    parser.add_argument("--model", required=True, help="folder of the model whose tokens are counted")
    parser.add_argument("--problems", type=count, default=2000, help="how many are drawn")
    parser.add_argument("--seed", type=int, default=0, help="seed of problems and traces")
    options = parser.parse_args(arguments)
    tokenizer = LocalModel.resolve(ModelConfig(path=options.model)).tokenizer
    drawn, rng = list(islice(problems("taught", options.seed), options.problems)), Random(options.seed)
    views = {
        "without the note": [prior_trace(problem, rng) for problem in drawn],
        "with the note": [posterior_trace(problem, rng) for problem in drawn],
    }
    print(f"{drawn[0].question}\n")
    for name, traces in views.items():
        print(f"--- {name} ({traces[0].label})\n{traces[0].completion}\n")
    for name, traces in views.items():
        print(json.dumps({"view": name, **figures(drawn, traces, lambda text: len(encode(tokenizer, text)))}))


def figures(drawn: Sequence[Problem], traces: Sequence[Trace], count: Callable[[str], int]) -> dict[str, object]:
    """Of a view's traces. count: tokens of a text."""
    pairs = list(zip(drawn, traces, strict=True))
    lengths = [count(trace.completion) for trace in traces]
    times = [count(trace.thinking) / count(shortest_trace(problem).thinking) for problem, trace in pairs]
    found = [label(Steps.parse([str(step) for step in problem.steps]), trace.completion) for problem, trace in pairs]
    return {
        "tokens": round(fmean(lengths), 1),
        "most tokens": max(lengths),
        "times needed": round(fmean(times), 2),
        "least times needed": round(min(times), 2),
        "labels": {name: round(share / len(found), 3) for name, share in Counter(found).most_common()},
        "agreement": fmean(trace.label == name for trace, name in zip(traces, found, strict=True)),
    }


if __name__ == "__main__":
    sys.exit(told(main))
