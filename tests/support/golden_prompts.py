"""What other tools render for ten fixed rows of each benchmark, written to tests/data/protocols/golden.json.

To be run where the tools are installed: `python -m tests.support.golden_prompts`. Their own functions and templates
make the text; the file holds the first of the ten in full and the SHA-256 of each.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"
GOLDEN = DATA / "protocols" / "golden.json"
ROWS = 10
SHOTS = 12  # rows of the examples' split that stand for it

Row = dict[str, Any]


def rows_of(benchmark: str) -> list[Row]:
    """Ten rows as the hub has them; those of AIME and GPQA are made up, since theirs may not be copied."""
    if benchmark.startswith("aime"):
        return [{"problem": f"Find the remainder of ${n}^{{{n + 3}}}$ by 1000.", "answer": str(n)} for n in range(ROWS)]
    if benchmark == "gpqa-diamond":
        return [gpqa_row(number) for number in range(ROWS)]
    file = {"gsm8k": "gsm8k_test_25", "math500": "math500_25", "mmlu-pro": "mmlu_pro_25"}[benchmark]
    with gzip.open(DATA / "questions" / f"{file}.jsonl.gz", "rt", encoding="utf-8") as packed:
        rows: list[Row] = [json.loads(line) for line in packed]
    return [row | {"problem": row["question"]} for row in rows[:ROWS]]


def gpqa_row(number: int) -> Row:
    """Made up; blanks at some ends, as the published file has them."""
    wrong = {f"Incorrect Answer {n}": f"{number} and {n} eV{' ' * (n % 2)}" for n in (1, 2, 3)}
    question = f"Which energy has level {number}?{chr(10) * (number % 2)}"
    return {"Record ID": f"rec{number}", "Question": question, "Correct Answer": f"{number} eV", **wrong}


def shot_rows(benchmark: str) -> list[Row]:
    """Rows of the split that examples are from, one after the other of every category."""
    if benchmark == "gsm8k":
        return [{"question": f"What is {n} + 1?", "answer": f"It is <<{n}+1>>.\n#### {n + 1}"} for n in range(SHOTS)]
    categories = sorted({row["category"] for row in rows_of("mmlu-pro")})
    solved = "A: Let's think step by step. It is {}. The answer is (A)."
    return [
        {"question": f"Is it {n}?", "options": ["x ", "y"], "category": one, "cot_content": solved.format(n)}
        for n in range(6)
        for one in categories
    ]


def _lighteval() -> Iterator[tuple[str, list[str]]]:
    for benchmark, name, function in (
        ("gsm8k", "gsm8k", "gsm8k_prompt"),
        ("math500", "math_500", "math_500_prompt"),
        ("aime24", "aime", "aime_prompt"),
        ("aime25", "aime", "aime_prompt"),
    ):
        render = getattr(importlib.import_module(f"lighteval.tasks.tasks.{name}"), function)
        yield benchmark, [render({"solution": "", **row}).query for row in rows_of(benchmark)]


def _lm_eval() -> Iterator[tuple[str, list[str]]]:
    sampler = importlib.import_module("lm_eval.api.samplers").ContextSampler(shot_rows("gsm8k"), rnd=1234)
    asked = [f"Question: {row['question']}\nAnswer:" for row in rows_of("gsm8k")]
    shown = [
        "\n\n".join(f"Question: {one['question']}\nAnswer: {one['answer']}" for one in sampler.sample(5)) for _ in asked
    ]
    yield "gsm8k", [f"{examples}\n\n{question}" for examples, question in zip(shown, asked, strict=True)]
    utils = importlib.import_module("lm_eval.tasks.mmlu_pro.utils")
    prompts = []
    for row in rows_of("mmlu-pro"):
        head = (
            f"The following are multiple choice questions (with answers) about {row['category']}. Think step by step "
            'and then finish your answer with "the answer is (X)" where X is the correct letter choice.\n'
        )
        of_it = [one for one in shot_rows("mmlu-pro") if one["category"] == row["category"]][:5]
        examples = "".join(f"{utils.fewshot_to_text(one)} {utils.fewshot_to_target(one)}\n\n" for one in of_it)
        prompts.append(head + examples + utils.doc_to_text(row))
    yield "mmlu-pro", prompts


def _evalscope() -> Iterator[tuple[str, list[str]]]:
    aime = importlib.import_module("evalscope.benchmarks.aime.aime_adapter").PROMPT_TEMPLATE
    for benchmark in ("aime24", "aime25"):
        yield benchmark, [aime.format(question=row["problem"]) for row in rows_of(benchmark)]
    choices = importlib.import_module("evalscope.utils.multi_choices")
    adapter = importlib.import_module("evalscope.benchmarks.gpqa.gpqa_adapter").GPQAAdapter
    process = adapter._process_input  # the rule itself
    made = [(row, process(None, row)["choices"]) for row in rows_of("gpqa-diamond")]
    yield (
        "gpqa-diamond",
        [choices.prompt(row["Question"], of_it, choices.SINGLE_ANSWER_TEMPLATE_COT) for row, of_it in made],
    )


def _inspect() -> Iterator[tuple[str, list[str]]]:
    aime = importlib.import_module("inspect_evals.utils.aime_common").USER_PROMPT_TEMPLATE
    for benchmark in ("aime24", "aime25"):
        yield benchmark, [aime.format(prompt=row["problem"]) for row in rows_of(benchmark)]
    dataset, gpqa = (importlib.import_module(name) for name in ("inspect_ai.dataset", "inspect_evals.gpqa.gpqa"))
    solver = importlib.import_module("inspect_ai.solver._multiple_choice")
    state = importlib.import_module("inspect_ai.solver._task_state")
    domain = {"High-level domain": "", "Subdomain": ""}
    samples = dataset.MemoryDataset([gpqa.record_to_sample(row | domain) for row in rows_of("gpqa-diamond")])
    samples.shuffle_choices(seed=gpqa.DEFAULT_SHUFFLE_SEED)
    template = solver.SINGLE_ANSWER_TEMPLATE_COT
    yield "gpqa-diamond", [solver.prompt(one.input, state.Choices(one.choices), template) for one in samples]
    pro = importlib.import_module("inspect_evals.mmlu_pro.mmlu_pro").USER_PROMPT_TEMPLATE
    yield (
        "mmlu-pro",
        [solver.prompt(row["question"], state.Choices(row["options"]), pro) for row in rows_of("mmlu-pro")],
    )


TOOLS: dict[str, tuple[str, tuple[str, ...], Callable[[], Iterator[tuple[str, list[str]]]]]] = {
    "lighteval": ("lighteval", ("lighteval",), _lighteval),
    "lm-eval": ("lm-eval", ("lm_eval",), _lm_eval),
    "evalscope": ("evalscope", ("evalscope",), _evalscope),
    "inspect": ("inspect-evals and inspect-ai", ("inspect_evals", "inspect_ai"), _inspect),
}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    """Write what the tools that are installed render; of the others the file's entries stay, and they are named."""
    before = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else []
    found = []
    for protocol, (tool, packages, render) in TOOLS.items():
        try:
            versions = {name: version(name) for name in packages}
            made = list(render())
        except ImportError as error:
            print(f"{tool} is not installed whole, and its entries stay: {error}")
            found += [one for one in before if one["protocol"] == protocol]
            continue
        for benchmark, prompts in made:
            hashes = [digest(text) for text in prompts]
            first = {"protocol": protocol, "benchmark": benchmark, "versions": versions, "first": prompts[0]}
            found.append(first | {"sha256": hashes})
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
