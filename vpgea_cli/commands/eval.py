"""`vpgea eval`: accuracy and tokens on a question file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpgea.config.resolve import DEFAULT, Resolved
from vpgea.errors import UsageError
from vpgea.questions.benchmarks import find_evalset, load_evalset
from vpgea.report.text import with_interval
from vpgea_cli.benchmarks import BenchmarkRun, chosen_protocols, list_protocols, run_benchmarks, sample_evaluation
from vpgea_cli.options import (
    AdapterOption,
    ConfigOption,
    DatasetOption,
    DevicesOption,
    DryRunOption,
    DtypeOption,
    JsonOption,
    LimitOption,
    ModelOption,
    NumSamplesOption,
    OfflineOption,
    OutputDirOption,
    OverwriteOption,
    QuietOption,
    ResumeOption,
    SeedOption,
    ServerOptionsArgument,
    ServerPythonOption,
    ServerUrlOption,
    SetOption,
    ShardOption,
    SkipBadRowsOption,
    VerboseOption,
    resolve_options,
    server_options,
)
from vpgea_cli.output import Output
from vpgea_cli.phase import required, running, say_devices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vpgea.protocols.protocol import Protocol
    from vpgea.questions.load import LoadedQuestions
    from vpgea.runs.records import EvalResults


_OF_LIST = ("list_all", "benchmark", "protocol", "as_json", "quiet", "verbose")


def command(
    context: typer.Context,
    *,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    dtype: DtypeOption = None,
    devices: DevicesOption = None,
    dataset: DatasetOption = None,
    evalset: Annotated[
        str | None,
        typer.Option(
            "--evalset",
            help="Read --dataset as this benchmark, or take it from the hub: gsm8k, math500, aime24, aime25, "
            "gpqa-diamond, mmlu-pro.",
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            "--benchmark",
            help="Benchmarks by a published protocol, commas between them; --dataset is then a file of one or a folder "
            "of several, else the hub is asked.",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol", help="How --benchmark is asked: deepseek (default), another name of --list, or a YAML file."
        ),
    ] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="List benchmarks and protocols with rows, samples and tokens.")
    ] = False,
    output_dir: OutputDirOption = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="The base model's evaluation folder, same questions.")
    ] = None,
    until_width: Annotated[
        float | None,
        typer.Option(
            "--until-width",
            help="Sample more per question until the interval of the accuracy, or of its gain over --baseline, is as "
            "narrow: 0.02 is two points.",
        ),
    ] = None,
    max_samples: Annotated[
        int | None, typer.Option("--max-samples", help="Samples per question at which --until-width ends; 64.")
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    num_samples: NumSamplesOption = None,
    limit: LimitOption = None,
    seed: SeedOption = None,
    shard: ShardOption = "0/1",
    skip_bad_rows: SkipBadRowsOption = None,
    server_url: ServerUrlOption = None,
    sglang_python: ServerPythonOption = None,
    resume: ResumeOption = True,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    options: ServerOptionsArgument = None,
) -> None:
    """Measure a model on questions: accuracy, tokens, and against a baseline the scores that join them."""
    output = Output(quiet=quiet, verbose=verbose, as_json=as_json)
    if list_all:
        _list(context, output, benchmark, protocol)
        return
    given = {
        **server_options(server_url, sglang_python, options),
        "model.path": model,
        "model.adapter": adapter,
        "model.dtype": dtype,
        "model.devices": devices,
        "data.dataset": dataset,
        "data.limit": limit,
        "data.skip_bad_rows": skip_bad_rows,
        "eval.samples": num_samples,
        "eval.seed": seed,
        "eval.baseline": None if baseline is None else str(baseline),
    }
    if benchmark is not None or protocol is not None:
        run = BenchmarkRun(
            chosen=_chosen(benchmark, protocol, evalset),
            resolve=lambda one: _resolved_by(one, given, config, sets),
            output_dir=output_dir,
            shard=shard,
            until=(until_width, max_samples),
            resume=resume,
            overwrite=overwrite,
            dry_run=dry_run,
            offline=offline,
        )
        run_benchmarks(run, output)
        return
    given |= {} if evalset is None else {"grading.grader": find_evalset(evalset).grader}
    resolved = resolve_options(given, config=config, sets=sets)
    with running(output, offline=offline) as stop:
        from vpgea.phases.widths import Width
        from vpgea.runs.parts import Part

        target, part = None if dry_run else required(output_dir), Part.parse(shard)
        width = Width.asked(until_width, max_samples, resolved.config, part)
        loaded = _load(resolved, evalset, output, offline=offline)
        if target is None:
            from vpgea_cli.dry_run import show_evaluation

            show_evaluation(resolved.config, loaded.questions, part, width, output)
            return
        say_devices(resolved.config, output)
        folder, found = sample_evaluation(
            resolved.config,
            loaded.questions,
            target,
            part=part,
            width=width,
            title="eval",
            resume=resume,
            overwrite=overwrite,
            stop=stop,
            output=output,
        )
        _finish(folder, found, output)


def _list(context: typer.Context, output: Output, benchmark: str | None, protocol: str | None) -> None:
    """What is listed depends on no model and no setting.

    Raises:
        UsageError: Another option is given that would say so.
    """
    sources = {one: context.get_parameter_source(str(one.name)) for one in context.command.params}
    given = [one for one, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if other := next((one for one in given if one.name not in _OF_LIST), None):
        name = max(other.opts, key=len)
        raise UsageError(
            f"--list does not go with {name if name.startswith('-') else 'options after --'}",
            why="it lists benchmarks and protocols as they are, whatever is measured by them",
            mend="leave it out, or leave --list out; --dry-run shows what an evaluation of a model would take",
        )
    list_protocols(output, benchmark, protocol)


def _chosen(benchmark: str | None, protocol: str | None, evalset: str | None) -> Sequence[Protocol]:
    """The protocols that the options name. A protocol says how rows are asked.

    Raises:
        UsageError: There is none, or another option contradicts it.
    """
    if benchmark is None:
        raise UsageError(
            "--protocol is given without --benchmark", why="it is of benchmarks", mend="name them: --benchmark math500"
        )
    if evalset is not None:
        raise UsageError(
            "--benchmark does not go with --evalset",
            why="its protocol says how the rows are read and asked",
            mend="leave --evalset out",
        )
    return chosen_protocols(benchmark, protocol)


def _resolved_by(
    protocol: Protocol, given: Mapping[str, object], config: Path | None, sets: Sequence[str] | None
) -> Resolved:
    """The configuration of one benchmark: its protocol's settings stand above the defaults and below all else."""
    layer = (f"protocol {protocol.name} of {protocol.benchmark}", protocol.settings)
    resolved = resolve_options(given, config=config, sets=sets, inherited=[layer])
    if (base := resolved.config.eval.baseline) is None:
        return resolved
    own = str(_own_baseline(Path(base), protocol.benchmark))
    config_of_it = resolved.config.model_copy(
        update={"eval": resolved.config.eval.model_copy(update={"baseline": own})}
    )
    return replace(resolved, config=config_of_it)


def _own_baseline(base: Path, benchmark: str) -> Path:
    """The base's evaluation of a benchmark: in a folder of several that of its name, of a growing one the last.

    Raises:
        UsageError: The folder has evaluations of others alone.
    """
    from vpgea.runs.layout import PARTS, samples_dir, samples_numbers

    own = base / benchmark if (base / benchmark).is_dir() else base
    if numbers := samples_numbers(own):
        return samples_dir(own, numbers[-1])
    if own != base or not base.is_dir() or (base / PARTS).is_dir():
        return own  # what is wrong with it is told where it is opened
    there = sorted(path.name for path in base.iterdir() if (path / PARTS).is_dir() or samples_numbers(path))
    raise UsageError(
        f"the baseline {base} has no evaluation of {benchmark}",
        why=f"it has {', '.join(there) or 'none at all'}, and each benchmark is held against its own",
        mend=f"evaluate the base by --benchmark {benchmark} into the same folder first, or leave {benchmark} out",
    )


def _finish(target: Path, results: EvalResults | None, output: Output) -> None:
    from vpgea.storage.records import json_of

    if results is None:
        output.info("this part is done; the figures are made when the last part is")
        output.result({"path": str(target), "complete": False})
        return
    show_metrics(results, output)
    output.result({"path": str(target), "complete": True, **json_of(results)})


def _load(resolved: Resolved, evalset: str | None, output: Output, *, offline: bool) -> LoadedQuestions:
    """The questions; what is to be said of them is said."""
    from vpgea.questions.load import load_questions

    data, origins = resolved.config.data, resolved.origins
    if evalset is None:
        loaded = load_questions(data, grader=resolved.config.grading.grader, offline=offline)
    else:
        loaded = load_evalset(
            evalset,
            data.dataset or None,
            fields=data.fields,
            split=None if origins["data.split"] == DEFAULT else data.split,
            subset=data.subset,
            limit=data.limit,
            skip_bad_rows=data.skip_bad_rows,
            offline=offline,
        )
    output.warn_all(loaded.said())
    return loaded


def show_metrics(results: EvalResults, output: Output) -> None:
    """Every figure with its interval; warnings below."""
    title = f"{results.questions:,} questions, {results.samples:,} samples, 95 % intervals"
    metrics = results.metrics
    output.table(
        title,
        ("", "value"),
        [(name, with_interval(one.value, one.low, one.high)) for name, one in metrics.items()],
    )
    _show_budgets(results, output)
    rejected = results.rejected_overlong + results.rejected_control_tokens
    if rejected:
        output.warn(f"{rejected} questions were rejected and are not in the figures (see results.json)")
    if results.not_graded:
        output.warn(f"{results.not_graded} samples could not be graded; they leave every figure")
    for warning in dict.fromkeys(metric.warning for metric in metrics.values() if metric.warning):
        names = [name for name, metric in metrics.items() if metric.warning == warning]
        output.warn(f"{', '.join(names)}: {warning}")


def _show_budgets(results: EvalResults, output: Output) -> None:
    from vpgea.metrics.curves import BUDGET_RULE

    rows = [
        (f"{point.budget:,}", *(with_interval(one.value, one.low, one.high) for one in (point.accuracy, point.tokens)))
        for point in results.budget_curve
    ]
    if rows:
        output.table(f"accuracy if cut at a budget of tokens, {BUDGET_RULE}", ("budget", "accuracy", "tokens"), rows)
