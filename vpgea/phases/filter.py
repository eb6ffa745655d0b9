"""Phase 2: grade every sample, look at posterior paths from the prior's view, and select what to learn from.

First half: measurements, chunk by chunk, resumable, by far the larger part of the work. Second half: thresholds,
utilities, advantages and gates over the whole of them, quick and redone whenever a part completes the phase.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from vpgea.config.resolve import flat_config
from vpgea.config.schema import RunConfig, identity_of, later_fields, with_values
from vpgea.engines.kept import KeptChunk
from vpgea.engines.lease import EngineLease, lent, opening
from vpgea.errors import QualityGateError, UsageError
from vpgea.filtering.crossview import CrossView
from vpgea.filtering.prior_view import PriorView, sampling_truncated
from vpgea.filtering.reference_lengths import ReferenceLengths
from vpgea.filtering.selection import select
from vpgea.filtering.wrong_notes import answers_behind
from vpgea.grading.samples import require_few_errors
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.ends import tell_ends
from vpgea.prompts.views import Views, load_views
from vpgea.runs.chunks import Made, run_chunks
from vpgea.runs.clock import Clock
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.journals import Journals
from vpgea.runs.layout import CHUNK, COMPLETE, LOGS, SETS, SUMMARY, TEACHER_SHARD, chunk_number
from vpgea.runs.manifest import Manifest, require_contents
from vpgea.runs.origins import require_all_samples
from vpgea.runs.parts import WHOLE, Part, part_folders
from vpgea.runs.phase_folder import PhaseFolder, begun
from vpgea.runs.progress import NullProgress, Progress
from vpgea.runs.records import FilterSummary
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import file_checksum
from vpgea.storage.records import read_record
from vpgea.storage.rows import read_rows, to_table
from vpgea.storage.schemas import SampleRow, TeacherRow
from vpgea.storage.shards import committed

_SECTIONS = ("grading", "filter")  # of the configuration, whose identity fields a filter is made from
_SAMPLED = (
    *("model.dtype", "rollout.temperature", "rollout.top_p", "rollout.top_k", "rollout.seed"),
    "rollout.noted_prior",
)  # of the rollout, what the filter must not have otherwise


def filter_rollout(
    config: RunConfig,
    rollout_dir: Path,
    output_dir: Path,
    *,
    part: Part = WHOLE,
    lease: EngineLease | None = None,
    resume: bool = True,
    overwrite: bool = False,
    stop: StopRequest | None = None,
    progress: Progress | None = None,
) -> FilterSummary | None:
    """Measure this part's chunks; once all parts are measured, select and return the summary (else None).

    Raises:
        UsageError: The rollout is unfinished or damaged, or its samples are of other weights or sampling.
        QualityGateError: Too many grader errors, or nothing is selected.
        EngineError: The engine fails.
        Stopped: A stop was requested.
    """
    stop, progress, clock = stop or StopRequest(), progress or NullProgress(), Clock()
    rollout = CompletePhase.open(rollout_dir, "rollout")
    own = {chunk_number(path): path for path in rollout.chunks(share=part)}
    model = LocalModel.resolve(config.model)
    views = load_views(model, config.views, config.grading.grader, begun=rollout.manifest.inputs)
    _require_same_source(config, rollout, model, views)
    require_filterable(config, model)
    unknown = {} if overwrite else _fields_after(output_dir, identity_of(config, *_SECTIONS))
    config = with_values(config, unknown)
    identity = identity_of(config, *_SECTIONS)
    manifest = Manifest(
        phase="filter",
        identity={key: value for key, value in identity.items() if key not in unknown},
        inputs={"rollout": rollout.content_fingerprint, **_reference_lengths_input(config)},
        contents=model.contents,
        config=flat_config(config),
        part=part,
    )
    folder = PhaseFolder.open(output_dir, manifest, resume=resume, overwrite=overwrite)
    with folder.writing(), clock.kept(folder):  # from here on: also while an engine starts
        if _is_selected(output_dir, rollout_dir):
            return _checked(config, read_record(output_dir / SUMMARY, FilterSummary))
        kinds = (CHUNK, TEACHER_SHARD) if config.filter.teacher_top_k else (CHUNK,)
        missing = folder.missing(own, *kinds)
        tell_ends(own.values(), views, config.rollout.max_new_tokens, progress)  # before anything is measured
        progress.advance(len(own) - len(missing))
        with Journals(folder, missing, stop, progress) as journals:
            if missing:
                with lent(lease, output_dir / LOGS, stop) as engines:
                    with clock.on("grading"):
                        graders = engines.graders(config)
                    with clock.on(opening(config)):
                        engine = engines.get(config, model)
                    prior_view = PriorView(
                        *(config, views, engine, graders, stop, progress), context=model.context_length, clock=clock
                    )
                    work = partial(_measured, prior_view, rollout, {index: own[index] for index in missing}, journals)
                    run_chunks(folder, missing, stop, work, journals)
        require_few_errors(config, [folder.chunk(index) for index in own])
        if not folder.complete({"chunks": len(own)}):
            return None
        measured = CompletePhase.open(output_dir, "filter")
        with clock.on("checks"):
            is_first = "filter.note_dependence.enabled" in unknown  # no released version but 0.1.0 was without it
            selected = select(config, views, rollout, measured, as_first_version=is_first)
        return _checked(config, selected)


def _measured(prior_view: PriorView, rollout: CompletePhase, shards: Mapping[int, Path], journals: Journals) -> Made:
    """Measure chunks of the rollout, one after the other. shards: by their numbers."""
    measuring = CrossView(prior_view)
    all_chunks = cache(rollout.chunks)  # listed once, and only where a chunk has too few answers of its own
    for index, shard in shards.items():
        prior_view.kept = KeptChunk(journals, index)
        rows = read_rows(shard, SampleRow)
        require_all_samples(shard, (row.key for row in rows), rollout.manifest)
        tables = {}
        with prior_view.clock.on("checks"):
            if prior_view.config.filter.teacher_top_k:
                tables[TEACHER_SHARD] = to_table(measuring.teacher(rows), TeacherRow)
            tables[CHUNK] = measuring.measure(rows, answers_behind(all_chunks, index))
        prior_view.progress.advance(1)
        yield index, tables


def _fields_after(output_dir: Path, fields: Collection[str]) -> dict[str, Any]:
    """Those of a filter's fields that the version which began a folder did not have, and what they were for it.

    Such a folder goes on as it was begun: its chunks were measured without the checks that came later.
    """
    before = begun(output_dir)
    if before is None:
        return {}
    return {key: value for key, value in later_fields().items() if key in fields and key not in before.identity}


def _is_selected(output_dir: Path, rollout_dir: Path) -> bool:
    """True when nothing is left to do: the summary, which is written last, and all that it counts are there."""
    if not all((output_dir / marker).is_file() for marker in (COMPLETE, SUMMARY)):
        return False
    chunks = set[str]().union(*map(committed, part_folders(rollout_dir)))
    return all(chunks <= committed(output_dir / name) for name in SETS)


def _require_same_source(config: RunConfig, rollout: CompletePhase, model: LocalModel, views: Views) -> None:
    """The checks must be made with the weights, the prompts and the sampling that made the paths."""
    made_from = rollout.manifest
    for name, now in (("model", model.fingerprint), ("template", views.fingerprint)):
        if made_from.inputs[name] != now:
            raise UsageError(
                f"{rollout.root} was sampled from another {name}",
                why=f"its fingerprint is {made_from.inputs[name]}, the configured {name} has {now}",
                mend=f"use the {name} of the rollout, or draw a new rollout",
            )
    require_contents(f"{rollout.root} was sampled from", made_from.contents, model.contents)
    sampling = identity_of(config, "model", "rollout")
    drawn = later_fields() | made_from.identity
    for key in _SAMPLED:
        if drawn[key] != sampling[key]:
            raise UsageError(
                f"{rollout.root} was sampled otherwise",
                why=f"{key} was {drawn[key]!r} there and is {sampling[key]!r} here",
                mend=f"leave {key} as it was: the filter takes it from the rollout when nothing else sets it",
            )


def require_filterable(config: RunConfig, model: LocalModel) -> None:
    """What a filter would refuse of the settings, whatever the rollout holds: a loop asks before it samples.

    Raises:
        UsageError: The gate needs what the sampling or the checks do not give, or a stored teacher leaves no tail,
            or the file of reference lengths is none.
    """
    if config.filter.reference_lengths is not None:
        ReferenceLengths.read(Path(config.filter.reference_lengths))
    gate = config.filter.advantage.gate
    if gate in ("plausible", "importance") and sampling_truncated(config):
        raise UsageError(
            f"filter.advantage.gate={gate} cannot be used with this sampling",
            why="it is tempered or truncated, so the log-ratio of the views is not known",
            mend="use filter.advantage.gate=advantage, or draw the rollout at temperature 1 without top-p and top-k",
        )
    if gate == "contrast" and not config.filter.note_dependence.enabled:
        raise UsageError(
            "filter.advantage.gate=contrast has nothing to shrink gates by",
            why="note dependence measures it, and filter.note_dependence.enabled is false",
            mend="use filter.advantage.gate=advantage, or filter.note_dependence.enabled=true",
        )
    count, vocabulary = config.filter.teacher_top_k, model.vocabulary_size
    if count >= vocabulary:
        raise UsageError(
            f"filter.teacher_top_k is {count:,}",
            why=f"the model's vocabulary has {vocabulary:,} tokens, and some must be left for the tail",
            mend="give a smaller number; 64 is usual",
        )


def _reference_lengths_input(config: RunConfig) -> dict[str, str]:
    if config.filter.reference_lengths is None:
        return {}
    return {"reference_lengths": file_checksum(Path(config.filter.reference_lengths))[:16]}


def _checked(config: RunConfig, summary: FilterSummary) -> FilterSummary:
    """The summary, unless too little was selected."""
    selected = summary.counts["posterior_gated"] + summary.counts["prior_with_advantage"]
    if selected < config.filter.min_selected:
        mend = "look at the rejected set with `vpgea inspect`, then loosen thresholds or draw more samples"
        sampled = summary.counts["prior_sampled"] + summary.counts["posterior_sampled"]
        unended = summary.no_end_of_thinking or 0
        cut_off = summary.counts["prior_cut_off"] + summary.counts["posterior_rejected_cut-off"]
        if unended and (2 * unended > cut_off or cut_off == sampled):  # or none at all ended its thinking
            mend = (
                f"{unended:,} of {sampled:,} samples ended by themselves without {config.views.end_of_thinking!r}: "
                "draw the rollout with views.end_of_thinking as the model writes it, or null if it does not think"
            )
        elif 2 * cut_off > sampled:
            mend = (
                f"{cut_off:,} of {sampled:,} samples were cut off before their thinking ended: draw a new rollout with "
                f"a larger rollout.max_new_tokens (it was {config.rollout.max_new_tokens:,})"
            )
        raise QualityGateError(
            f"{selected} samples are left to learn from",
            why=f"filter.min_selected asks for at least {config.filter.min_selected}; the summary lists every reason",
            mend=mend,
        )
    return summary
