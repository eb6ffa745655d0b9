"""`vpgea eval --benchmark`: benchmarks by their protocols, one after the other, and the list of what there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vpgea.config.resolve import DEFAULT, Resolved
from vpgea.errors import UsageError
from vpgea.protocols.protocol import DEFAULT as DEFAULT_PROTOCOL
from vpgea.protocols.protocol import Protocol, find_protocol, protocols
from vpgea.report.text import with_interval
from vpgea_cli.output import Output, aligned
from vpgea_cli.phase import required, running, say_devices

if TYPE_CHECKING:
    from vpgea.config.schema import RunConfig
    from vpgea.protocols.asking import Asked
    from vpgea.protocols.card import ProtocolCard
    from vpgea.protocols.published import Reproduction
    from vpgea.questions.load import LoadedQuestions
    from vpgea.runs.parts import Part
    from vpgea.runs.records import EvalResults
    from vpgea.runs.stopping import StopRequest


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """What the options say of a run of benchmarks. resolve: the configuration of one, whose protocol gives defaults."""

    chosen: Sequence[Protocol]
    resolve: Callable[[Protocol], Resolved]
    output_dir: Path | None
    shard: str
    resume: bool
    overwrite: bool
    dry_run: bool
    offline: bool


@dataclass(frozen=True)
class _Loaded:
    """A benchmark that is ready to be asked."""

    config: RunConfig
    questions: LoadedQuestions
    asked: Asked


def chosen_protocols(benchmarks: str, name: str | None) -> list[Protocol]:
    """The protocol of each benchmark of a list with commas; deepseek where none is named.

    Raises:
        UsageError: There is no such benchmark or protocol, or one is named twice.
    """
    names = [one.strip() for one in benchmarks.split(",") if one.strip()]
    if not names or len(set(names)) != len(names):
        raise UsageError(
            "--benchmark names no benchmark, or one twice",
            why=f"it is {benchmarks!r}",
            mend="give names with commas between them: --benchmark math500,aime24",
        )
    return [find_protocol(one, name or DEFAULT_PROTOCOL) for one in names]


def list_protocols(output: Output) -> None:
    """Benchmarks, protocols, where the rows are from, and what a run costs in samples and tokens at the most."""
    from vpgea.questions.benchmarks import EVALSETS

    found = []
    for one in protocols():
        evalset = EVALSETS[one.benchmark]
        asked = evalset.asked(one.order)
        samples = asked * one.samples
        found.append(
            {
                "benchmark": one.benchmark,
                "protocol": one.name,
                "version": one.version,
                "rows": asked,
                "samples_per_question": one.samples,
                "samples": samples,
                "most_tokens": samples * one.max_new_tokens,
                "temperature": one.temperature,
                "top_p": one.top_p,
                "examples": 0 if one.shots is None else one.shots.count,
                "grader": one.grader,
                "hub_id": evalset.hub_id,
                "sources": [source.what for source in one.sources],
                "differs": one.differs,
            }
        )
    if output.as_json:
        output.result({"protocols": found})
        return
    columns = (
        "benchmark",
        "protocol",
        "version",
        "rows",
        "samples",
        "most_tokens",
        "temperature",
        "examples",
        "grader",
    )
    rows = [[f"{one[name]:,}" if isinstance(one[name], int) else str(one[name]) for name in columns] for one in found]
    told = "samples of a whole run, and its tokens if each response runs to its cap"
    output.result("\n".join([*aligned([list(columns), *rows]), "", told]))


def run_benchmarks(run: BenchmarkRun, output: Output) -> None:
    """Evaluate each benchmark into a folder of its own name, and show all of them together."""
    from vpgea.runs.parts import Part

    part = Part.parse(run.shard)
    with running(output, offline=run.offline) as stop:
        loaded = [_load(one, run) for one in run.chosen]
        for one in loaded:
            output.warn_all(one.questions.said())
        if run.dry_run:
            for one in loaded:
                _show_costs(one, part, output)
            return
        root = required(run.output_dir)
        say_devices(loaded[0].config, output)
        _finish(root, _evaluated(loaded, root, run, part, output, stop), len(loaded), output)


def _evaluated(
    loaded: Sequence[_Loaded], root: Path, run: BenchmarkRun, part: Part, output: Output, stop: StopRequest
) -> dict[str, EvalResults]:
    """Results by benchmark, of those whose parts are all there; one engine samples for all."""
    from vpgea.engines.lease import EngineLease
    from vpgea.phases.evaluate import evaluate
    from vpgea.runs.layout import LOGS

    results: dict[str, EvalResults] = {}
    with EngineLease(root / LOGS, stop) as lease:
        for one in loaded:
            name, questions = one.asked.protocol.benchmark, one.questions.questions
            with output.progress(len(questions), f"{name}: questions") as progress:
                found = evaluate(
                    one.config,
                    questions,
                    root / name,
                    part=part,
                    lease=lease,
                    resume=run.resume,
                    overwrite=run.overwrite,
                    stop=stop,
                    progress=progress,
                    asked=one.asked,
                )
            if found is not None:
                results[name] = found
    return results


def _load(protocol: Protocol, run: BenchmarkRun) -> _Loaded:
    from vpgea.protocols.sources import load_asked

    resolved = run.resolve(protocol)
    config = resolved.config
    split = None if resolved.origins["data.split"] == DEFAULT else config.data.split
    questions, asked = load_asked(protocol, config.data, split=split, offline=run.offline)
    return _Loaded(config, questions, asked)


def _show_costs(one: _Loaded, part: Part, output: Output) -> None:
    from vpgea.estimate.phases import forecast_eval
    from vpgea.phases.evaluate import EvalPlan
    from vpgea_cli.dry_run import show

    show(
        forecast_eval(one.config, EvalPlan.make(one.config, one.questions.questions, part=part, asked=one.asked)),
        output,
    )


def _finish(root: Path, results: dict[str, EvalResults], asked: int, output: Output) -> None:
    from vpgea.protocols.card import ProtocolCard
    from vpgea.runs.layout import PROTOCOL
    from vpgea.storage.records import json_of, read_record

    if len(results) < asked:
        output.info("this part is done; the figures are made when the last part is")
    cards = {name: read_record(root / name / PROTOCOL, ProtocolCard) for name in results}
    for card in cards.values():
        _show_card(card, output)
    rows = []
    for name, found in results.items():
        accuracy, tokens = found.metrics["accuracy"], found.metrics["tokens"]
        reproduction = cards[name].reproduction
        rows.append(
            (
                name,
                f"{cards[name].name} {cards[name].version}",
                cards[name].figure,
                with_interval(accuracy.value, accuracy.low, accuracy.high),
                with_interval(tokens.value, tokens.low, tokens.high, digits=0),
                "-" if reproduction is None else _said(reproduction),
            )
        )
    if rows:
        output.table("95 % intervals", ("benchmark", "protocol", "figure", "accuracy", "tokens", "published"), rows)
    output.result(
        {
            "path": str(root),
            "complete": len(results) == asked,
            "benchmarks": {
                name: {"results": json_of(found), "protocol": json_of(cards[name])} for name, found in results.items()
            },
        }
    )


def _show_card(card: ProtocolCard, output: Output) -> None:
    """The prompt with its ids, once per benchmark, and what is otherwise than one may think."""
    from vpgea.prompts.views import PromptPreview
    from vpgea.report.prompt_text import prompt_text
    from vpgea.storage.schemas import PRIOR

    shown = card.shown
    preview = PromptPreview(
        view=PRIOR, question_id=shown.question_id, text=shown.text, ids=shown.ids, tokens=shown.tokens
    )
    output.info(f"{card.benchmark} by protocol {card.name} {card.version}, rows of {card.rows.source}")
    output.info(prompt_text(preview))
    if shown.training_turn:
        output.info(f"--- the training's template would ask ---\n{shown.training_turn}")
    for deviation in card.deviations:
        output.warn(f"{card.benchmark} is not measured as its protocol says: {deviation}")
    if card.reproduction is not None:
        output.info(f"{card.benchmark}: {card.reproduction.why}")


def _said(one: Reproduction) -> str:
    return f"{one.low:.2f}-{one.high:.2f} of {one.evaluators} evaluators: {one.verdict}"
