"""`vpgea eval --benchmark`: benchmarks by their protocols, one after the other, and the list of what there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vpgea.config.resolve import DEFAULT, Resolved
from vpgea.errors import UsageError, did_you_mean
from vpgea.protocols.protocol import DEFAULT as DEFAULT_PROTOCOL
from vpgea.protocols.protocol import Protocol, find_protocol, protocols
from vpgea.questions.benchmarks import EVALSETS, find_evalset
from vpgea.report.text import with_interval
from vpgea_cli.output import Output, aligned
from vpgea_cli.phase import required, running, say_devices

if TYPE_CHECKING:
    from vpgea.config.schema import RunConfig
    from vpgea.engines.lease import EngineLease
    from vpgea.phases.widths import Width
    from vpgea.protocols.asking import Asked
    from vpgea.protocols.card import ProtocolCard
    from vpgea.protocols.published import Reproduction
    from vpgea.questions.load import LoadedQuestions
    from vpgea.questions.question import Question
    from vpgea.runs.parts import Part
    from vpgea.runs.records import EvalResults
    from vpgea.runs.stopping import StopRequest


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """What the options say of a run of benchmarks.

    resolve: the configuration of one, whose protocol gives defaults. until: --until-width and --max-samples.
    """

    chosen: Sequence[Protocol]
    resolve: Callable[[Protocol], Resolved]
    output_dir: Path | None
    shard: str
    until: tuple[float | None, int | None]
    resume: bool
    overwrite: bool
    dry_run: bool
    offline: bool


@dataclass(frozen=True)
class _Loaded:
    """A benchmark that is ready to be asked. width: where it is asked until an interval is as narrow."""

    config: RunConfig
    questions: LoadedQuestions
    asked: Asked
    width: Width | None


def chosen_protocols(benchmarks: str, name: str | None) -> list[Protocol]:
    """The protocol of each benchmark of a list with commas; deepseek where none is named.

    Raises:
        UsageError: There is no such benchmark or protocol, or one is named twice.
    """
    return [find_protocol(one, name or DEFAULT_PROTOCOL) for one in _names(benchmarks)]


def _names(benchmarks: str) -> list[str]:
    names = [one.strip() for one in benchmarks.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise UsageError(
            "--benchmark names no benchmark between two commas, or one twice",
            why=f"it is {benchmarks!r}",
            mend="give names with commas between them: --benchmark math500,aime24",
        )
    return names


def _listed(benchmarks: str | None, name: str | None) -> list[Protocol]:
    if benchmarks is None:
        of_them = list(protocols())
    else:
        names = _names(benchmarks)
        for one in names:
            find_evalset(one)
        of_them = [one for one in protocols() if one.benchmark in names]
    found = [one for one in of_them if name in (None, one.name)]
    if not found:
        names = sorted({one.name for one in of_them})
        raise UsageError(
            f"--list knows no protocol named {name!r}",
            why=f"there are {', '.join(names)}",
            mend=did_you_mean(name or "", names, "name one of them, or leave --protocol out"),
        )
    return found


def list_protocols(output: Output, benchmarks: str | None, name: str | None) -> None:
    """Benchmarks, protocols, where the rows are from, and what a run costs in samples and tokens at the most.

    Raises:
        UsageError: Benchmarks or a protocol are named that there are not.
    """
    found = []
    for one in _listed(benchmarks, name):
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
        loaded = [_load(one, run, part) for one in run.chosen]
        for one in loaded:
            output.warn_all(one.questions.said())
        if run.dry_run:
            from vpgea_cli.dry_run import show_evaluation

            for one in loaded:
                show_evaluation(one.config, one.questions.questions, part, one.width, output, asked=one.asked)
            return
        root = required(run.output_dir)
        say_devices(loaded[0].config, output)
        _finish(root, _evaluated(loaded, root, run, part, output, stop), len(loaded), output)


def _evaluated(
    loaded: Sequence[_Loaded], root: Path, run: BenchmarkRun, part: Part, output: Output, stop: StopRequest
) -> dict[str, tuple[Path, EvalResults]]:
    """By benchmark the folder and the results of those whose parts are all there; one engine samples for all."""
    from vpgea.engines.lease import EngineLease
    from vpgea.runs.layout import LOGS

    for one in loaded[1:]:  # what the first would refuse is said before it samples, and the others' hours later
        _require_ready(one, root, run, part)
    results: dict[str, tuple[Path, EvalResults]] = {}
    with EngineLease(root / LOGS, stop) as lease:
        for one in loaded:
            name = one.asked.protocol.benchmark
            folder, found = sample_evaluation(
                one.config,
                one.questions.questions,
                root / name,
                part=part,
                width=one.width,
                title=name,
                lease=lease,
                resume=run.resume,
                overwrite=run.overwrite,
                stop=stop,
                output=output,
                asked=one.asked,
            )
            if found is not None:
                results[name] = folder, found
    return results


def _require_ready(one: _Loaded, root: Path, run: BenchmarkRun, part: Part) -> None:
    """As its turn will: another baseline, a prompt that is none, or a folder of something else is refused."""
    from vpgea.phases.evaluate import require_ready
    from vpgea.phases.widths import require_ready_until

    ready: Callable[..., None] = partial(require_ready, part=part) if one.width is None else require_ready_until
    folder = root / one.asked.protocol.benchmark
    ready(one.config, one.questions.questions, folder, resume=run.resume, overwrite=run.overwrite, asked=one.asked)


def sample_evaluation(
    config: RunConfig,
    questions: Sequence[Question],
    target: Path,
    *,
    part: Part,
    width: Width | None,
    title: str,
    resume: bool,
    overwrite: bool,
    stop: StopRequest,
    output: Output,
    lease: EngineLease | None = None,
    asked: Asked | None = None,
) -> tuple[Path, EvalResults | None]:
    """Evaluate, once or until an interval is as narrow, with a progress bar of this title.

    Returns:
        The folder that the results stand in, and these, once all parts are there.
    """
    from vpgea.phases.evaluate import evaluate
    from vpgea.phases.widths import evaluate_until

    bar = partial(output.progress, len(questions), f"{title}: questions")
    if width is not None:
        return evaluate_until(
            config,
            questions,
            target,
            width,
            lease=lease,
            resume=resume,
            overwrite=overwrite,
            stop=stop,
            progress_of=bar,
            say=output.info,
            asked=asked,
        )
    with bar() as progress:
        return target, evaluate(
            config,
            questions,
            target,
            part=part,
            lease=lease,
            resume=resume,
            overwrite=overwrite,
            stop=stop,
            progress=progress,
            asked=asked,
        )


def _load(protocol: Protocol, run: BenchmarkRun, part: Part) -> _Loaded:
    from vpgea.phases.widths import Width
    from vpgea.protocols.sources import load_asked

    resolved = run.resolve(protocol)
    config = resolved.config
    split = None if resolved.origins["data.split"] == DEFAULT else config.data.split
    questions, asked = load_asked(protocol, config.data, split=split, offline=run.offline)
    return _Loaded(config, questions, asked, Width.asked(*run.until, config, part))


def _finish(root: Path, results: dict[str, tuple[Path, EvalResults]], asked: int, output: Output) -> None:
    from vpgea.protocols.card import ProtocolCard
    from vpgea.runs.layout import PROTOCOL
    from vpgea.storage.records import json_of, read_record

    if len(results) < asked:
        output.info("this part is done; the figures are made when the last part is")
    cards = {name: read_record(folder / PROTOCOL, ProtocolCard) for name, (folder, _) in results.items()}
    for card in cards.values():
        _show_card(card, output)
    rows = []
    for name, (_, found) in results.items():
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
                name: {"path": str(folder), "results": json_of(found), "protocol": json_of(cards[name])}
                for name, (folder, found) in results.items()
            },
        }
    )


def _show_card(card: ProtocolCard, output: Output) -> None:
    """The prompt with its ids, once per benchmark, and what is otherwise than one may think."""
    from vpgea.prompts.views import PromptPreview
    from vpgea.protocols.published import UNATTRIBUTED, unattributed
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
    for one, value in unattributed(card.known_model or "", card.benchmark):
        output.info(f"{card.benchmark}: {one.who} states {value:.3f} of {' or '.join(one.models)} ({UNATTRIBUTED})")


def _said(one: Reproduction) -> str:
    return f"{one.low:.2f}-{one.high:.2f} of {one.evaluators} evaluators: {one.verdict}"
