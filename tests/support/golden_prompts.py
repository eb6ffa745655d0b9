"""What other tools ask for ten fixed rows of each benchmark, written to tests/data/protocols/golden.json.

To be run where the tools are installed, or lie as checkouts on the path: `python -m tests.support.golden_prompts`. Each
tool builds its own task from the rows, which are served where it would load its data set, and asks them; the file
holds the first of the ten in full and the SHA-256 of each.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

from tests.support.golden_rows import GOLDEN, Row, digest, rows_of, shot_rows, write_rows

SHOT_SPLITS = {"gsm8k": "train", "mmlu-pro": "validation"}


class Made(NamedTuple):
    """What a tool asks. letters: of the right choices, where it puts them into an order of its own."""

    benchmark: str
    prompts: list[str]
    letters: str = ""


def hub_rows(benchmark: str) -> list[Row]:
    """The ten rows, and what the tools' copies have beside our columns, or call otherwise."""
    rows = []
    for number, row in enumerate(rows_of(benchmark)):
        named = {"id": str(number), "unique_id": str(number), "question_id": number, "cot_content": ""} | row
        solved = {"solution": f"\\boxed{{{row.get('answer')}}}"} | named
        capital = {"ID": str(number), "Problem": row.get("problem"), "Answer": row.get("answer"), "Solution": ""}
        rows.append(solved | (capital if benchmark.startswith("aime") else {}))
    return rows


@contextmanager
def hub_serves(benchmark: str, loader: str = "datasets.load_dataset") -> Iterator[None]:
    """The tool's `load_dataset` gives the fixed rows as every split, and the examples as theirs."""
    datasets = importlib.import_module("datasets")
    rows = datasets.Dataset.from_list(hub_rows(benchmark))
    splits = dict.fromkeys(("train", "validation", "test"), rows)
    if benchmark in SHOT_SPLITS:
        splits[SHOT_SPLITS[benchmark]] = datasets.Dataset.from_list(shot_rows(benchmark))
    whole = datasets.DatasetDict(splits)

    def serve(*_: object, split: str | None = None, **__: object) -> Any:
        return whole if split is None else whole[split]

    with patch(loader, serve):
        yield


def _lighteval() -> Iterator[Made]:
    """By its pipeline, with the model that needs no weights; asked as a chat."""
    pipeline = importlib.import_module("lighteval.pipeline")
    tracker = importlib.import_module("lighteval.logging.evaluation_tracker").EvaluationTracker
    model = importlib.import_module("lighteval.models.dummy.dummy_model").DummyModelConfig
    chat = importlib.import_module("lighteval.tasks.prompt_manager").PromptManager(use_chat_template=True)
    registry = importlib.import_module("lighteval.tasks.registry").Registry
    tables = [
        importlib.import_module(f"lighteval.tasks.tasks.{name}") for name in ("gsm8k", "math_500", "aime", "gpqa")
    ]
    tasks = {one.name: one for table in tables for one in table.TASKS_TABLE}  # others load from the net when imported
    names = {"gsm8k": "gsm8k", "math500": "math_500", "aime24": "aime24", "aime25": "aime25"}
    for benchmark, name in {**names, "gpqa-diamond": "gpqa:diamond"}.items():
        with (
            TemporaryDirectory() as folder,
            patch.object(registry, "load_all_task_configs", return_value=tasks),
            hub_serves(benchmark, "lighteval.tasks.lighteval_task.load_dataset"),
        ):
            run = pipeline.Pipeline(
                tasks=f"{name}|0",
                pipeline_parameters=pipeline.PipelineParameters(launcher_type=pipeline.ParallelismManager.NONE),
                evaluation_tracker=tracker(output_dir=folder),
                model_config=model(),
            )
        (docs,) = run.documents_dict.values()
        docs = sorted(docs, key=lambda doc: int(doc.id))
        turns = [chat.prepare_prompt_api(doc) for doc in docs]
        letters = "".join("ABCD"[doc.gold_index] for doc in docs) if benchmark == "gpqa-diamond" else ""
        yield Made(benchmark, [turn["content"] for (turn,) in turns], letters)


def _lm_eval() -> Iterator[Made]:
    """By its tasks' requests, as a text to be continued."""
    manager = importlib.import_module("lm_eval.tasks").TaskManager()

    def asked(name: str) -> list[tuple[Row, str]]:
        (task,) = manager.load([name])["tasks"].values()
        task.set_fewshot_seed(1234)  # the default of its command line
        task.build_all_requests()
        return [(one.doc, one.args[0]) for one in task.instances]

    names = {"gsm8k": "gsm8k", "math500": "hendrycks_math500", "aime24": "aime24", "aime25": "aime25"}
    for benchmark, name in names.items():
        with hub_serves(benchmark):
            yield Made(benchmark, [prompt for _, prompt in asked(name)])
    rows = rows_of("mmlu-pro")
    subjects = {row["category"].replace(" ", "_") for row in rows}
    with hub_serves("mmlu-pro"):
        made = {doc["question_id"]: prompt for one in subjects for doc, prompt in asked(f"mmlu_pro_{one}")}
    yield Made("mmlu-pro", [made[row["question_id"]] for row in rows])


def _evalscope() -> Iterator[Made]:
    """By its benchmarks' data sets, loaded from a folder."""
    get_benchmark = importlib.import_module("evalscope.api.registry").get_benchmark
    configuration = importlib.import_module("evalscope").TaskConfig
    names = {"math500": "math_500", "aime24": "aime24", "aime25": "aime25", "gpqa-diamond": "gpqa_diamond"}
    for benchmark, name in names.items():
        with TemporaryDirectory() as folder, hub_serves(benchmark):
            arguments = {name: {"local_path": folder}}
            config = configuration(eval_type="mock_llm", datasets=[name], dataset_args=arguments)
            subsets = get_benchmark(name, config).load_dataset()
        samples = [one for subset in subsets.values() for one in subset]
        if benchmark == "math500":  # which is divided by levels
            places = [row["unique_id"] for row in hub_rows(benchmark)]
            samples.sort(key=lambda one: places.index(one.metadata["question_id"]))
        letters = "".join(one.target for one in samples) if benchmark == "gpqa-diamond" else ""
        yield Made(benchmark, [turn.text for one in samples for turn in one.input], letters)


def _inspect() -> Iterator[Made]:
    """By evaluations with the model that needs no weights."""
    ask = importlib.import_module("inspect_ai").eval

    def asked(task: Any) -> list[str]:
        with TemporaryDirectory() as folder:
            (log,) = ask(task, model="mockllm/model", epochs=1, log_dir=folder, display="none", score=False)
            turns = {one.id: [turn.text for turn in one.messages if turn.role != "assistant"] for one in log.samples}
        return [turn for one in task.dataset for turn in turns[one.id]]

    aime24, aime25, mmlu_pro = (
        importlib.import_module(f"inspect_evals.{name}.{name}") for name in ("aime2024", "aime2025", "mmlu_pro")
    )
    for benchmark, make in (
        ("aime24", aime24.aime2024),
        ("aime25", aime25.aime2025),
        ("mmlu-pro", lambda: mmlu_pro.mmlu_pro(shuffle=False)),
    ):
        with hub_serves(benchmark):
            yield Made(benchmark, asked(make()))
    gpqa = importlib.import_module("inspect_evals.gpqa.gpqa")
    with TemporaryDirectory() as folder, patch.object(gpqa, "download"):
        path = write_rows(Path(folder, "gpqa_diamond.csv"), rows_of("gpqa-diamond"))
        with patch.object(gpqa, "GPQA_DIAMOND_CACHE_PATH", path):
            task = gpqa.gpqa_diamond()
    yield Made("gpqa-diamond", asked(task), "".join(one.target for one in task.dataset))


def _simple_evals() -> Iterator[Made]:
    """By its evaluation, with a sampler that always gives the same answer."""
    script = importlib.import_module("simple_evals.gpqa_eval")
    response = importlib.import_module("simple_evals.types").SamplerResponse

    class Sampler:
        def _pack_message(self, content: str, role: str) -> dict[str, str]:
            return {"content": content, "role": role}

        def __call__(self, turns: list[dict[str, str]]) -> Any:
            return response("Answer: A", turns, {})

    with TemporaryDirectory() as folder:
        table = script.pandas.read_csv(write_rows(Path(folder, "gpqa.csv"), rows_of("gpqa-diamond")))
    with patch.object(script.pandas, "read_csv", lambda _: table):
        evaluation = script.GPQAEval()
    turns = [convo[0]["content"] for convo in evaluation(Sampler()).convos]
    yield Made("gpqa-diamond", turns, "".join("ABCD"[one["permutation"].index(0)] for one in evaluation.examples))


def _official() -> Iterator[Made]:
    """By the functions of its script; vllm, which makes no prompt, is left out."""
    absent = {"vllm": ["LLM", "SamplingParams"], "vllm.lora": [], "vllm.lora.request": ["LoRARequest"]}
    for name, attributes in absent.items():
        sys.modules[name] = module = ModuleType(name)
        vars(module).update(dict.fromkeys(attributes))
    script = importlib.import_module("MMLU_Pro.evaluate_from_local")
    with hub_serves("mmlu-pro", "MMLU_Pro.evaluate_from_local.load_dataset"), chdir(Path(script.__file__ or "").parent):
        rows, examples = script.load_mmlu_pro()
        yield Made("mmlu-pro", [script.generate_cot_prompt(examples, row, 5) for row in rows])


TOOLS: dict[str, tuple[tuple[str, ...], Callable[[], Iterator[Made]]]] = {
    "lighteval": (("lighteval",), _lighteval),
    "lm-eval": (("lm_eval",), _lm_eval),
    "evalscope": (("evalscope",), _evalscope),
    "inspect": (("inspect_evals", "inspect_ai"), _inspect),
    "simple-evals": (("simple_evals",), _simple_evals),
    "official": (("MMLU_Pro",), _official),
}


def release(package: str) -> str:
    """Its version; the commit of a checkout."""
    folder = next(iter(importlib.import_module(package).__path__))
    try:
        return version(package)
    except PackageNotFoundError:
        command = ["git", "-C", folder, "rev-parse", "HEAD"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Write what the tools that are installed ask; of the others the file's entries stay, and they are named."""
    before = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else []
    found = []
    for protocol, (packages, render) in TOOLS.items():
        try:
            versions = {name: release(name) for name in packages}
            made = list(render())
        except ImportError as error:
            print(f"{protocol} is not installed whole, and its entries stay: {error}")
            found += [one for one in before if one["protocol"] == protocol]
            continue
        for benchmark, prompts, letters in made:
            entry: dict[str, object] = {"protocol": protocol, "benchmark": benchmark, "versions": versions}
            entry |= {"first": prompts[0], "sha256": [digest(text) for text in prompts]}
            found.append(entry | ({"letters": letters} if letters else {}))
    GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
