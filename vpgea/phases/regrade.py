"""Grading an evaluation's stored samples again, by another grader or a mended one, without sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vpgea.config.problems import FIELDS
from vpgea.config.resolve import flat_config
from vpgea.config.schema import RunConfig, identity_of, value_of
from vpgea.errors import UsageError
from vpgea.grading.base import Grade, Status
from vpgea.grading.plain import BOX, MATH_VERIFY
from vpgea.grading.samples import grade_rows, grader_pool, require_few_errors
from vpgea.metrics.estimates import Estimate, share_of
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.evaluate import graded_row, results
from vpgea.phases.protocol_results import regraded_card
from vpgea.prompts.benchmark import BenchmarkTurns
from vpgea.prompts.views import Views, load_views
from vpgea.protocols.card import ProtocolCard
from vpgea.questions.clusters import Numbering
from vpgea.runs.chunks import Made, run_chunks
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.journals import Journals
from vpgea.runs.layout import CHUNK, PROTOCOL, RESULTS, chunk_number
from vpgea.runs.manifest import REGRADED, Manifest
from vpgea.runs.parts import part_folders
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import NullProgress, Progress
from vpgea.runs.records import Disagreement, EvalResults, PartMarker, Regraded
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import write_json
from vpgea.storage.records import json_of, read_record
from vpgea.storage.rows import read_rows, to_table
from vpgea.storage.schemas import GradedRow

STORED = "as stored"


def regrade(
    config: RunConfig,
    source: CompletePhase,
    output_dir: Path,
    *,
    overwrite: bool = False,
    stop: StopRequest | None = None,
    progress: Progress | None = None,
) -> EvalResults:
    """Write an evaluation folder of the same samples with new grades; what is finished of it is kept.

    Args:
        config: As the evaluation recorded it, but for grading.* and for where the model's tokenizer is now.
        source: The evaluation.
        output_dir: Another folder.
        overwrite: What stands in the output folder is begun anew.
        stop: Looked at between chunks.
        progress: Of chunks.

    Raises:
        UsageError: The output is the source, more than the grading is another, the tokenizer is not the one that the
            samples were made with, or the card of their protocol is not there.
        QualityGateError: Too many grader errors.
        Stopped: A stop was requested.
    """
    stop, progress = stop or StopRequest(), progress or NullProgress()
    if source.manifest.is_imported:
        raise UsageError(
            f"{source.root} was imported, and has no prompts or ids of a model of ours",
            why="an import is graded from its log, whose own grades then stand beside",
            mend="`vpgea import LOG --regrade --grader NAME -o NEW`",
        )
    _require_elsewhere(source.root, output_dir)
    _require_same_samples(source, config)
    views, card = _views(source, config), _card(source)
    folder = PhaseFolder.open(output_dir, _manifest(source, config), overwrite=overwrite)
    shards = {chunk_number(path): path for path in source.chunks()}
    with folder.writing():
        missing = folder.missing(sorted(shards))
        progress.advance(len(shards) - len(missing))
        with Journals(folder, missing, stop, progress) as journals, grader_pool(config) as graders:

            def work() -> Made:
                for chunk in missing:
                    rows = [row.sample for row in read_rows(shards[chunk], GradedRow)]
                    grades = grade_rows(views, graders, rows, journals)
                    pairs = zip(rows, grades, strict=True)
                    yield (
                        chunk,
                        {CHUNK: to_table([graded_row(views, config.grading.grader, *one) for one in pairs], GradedRow)},
                    )
                    progress.advance(1)

            run_chunks(folder, missing, stop, work, journals)
        require_few_errors(config, [folder.chunk(chunk) for chunk in shards])
        summary = PartMarker.read(part_folders(source.root)[0]).summary
        folder.complete(summary)
        rejected = {name: int(str(count)) for name, count in summary.items() if name.startswith("rejected_")}
        regraded = CompletePhase.open(output_dir, "eval")
        found = replace(
            results(config, regraded, None, rejected), regraded=_by_graders(source, regraded, config, views, stop)
        )
        if card is not None:
            again = regraded_card(config, card, source.manifest.identity, found)
            write_json(output_dir / PROTOCOL, json_of(again))
        write_json(output_dir / RESULTS, json_of(found))
    return found


def _require_elsewhere(source_dir: Path, output_dir: Path) -> None:
    source, output = source_dir.resolve(), output_dir.resolve()
    if source == output or source in output.parents or output in source.parents:
        raise UsageError(
            f"{output_dir} is the evaluation itself, or a folder in or around it",
            why="grades are never replaced in place: what was reported could not be seen any more",
            mend="give another --output-dir",
        )


def _require_same_samples(source: CompletePhase, config: RunConfig) -> None:
    for key, value in source.manifest.identity.items():
        if key in FIELDS and not key.startswith(("grading.", "model.")) and value_of(config, key) != value:
            raise UsageError(
                f"{key} is {value!r} in {source.root}, and {value_of(config, key)!r} was given",
                why="only the grading of samples that are stored can be another",
                mend="leave it out, or run `vpgea eval` with it",
            )


def _card(source: CompletePhase) -> ProtocolCard | None:
    """Of the protocol by which the samples were drawn; None where there was none."""
    if not source.manifest.is_by_protocol:
        return None
    if not (source.root / PROTOCOL).is_file():
        raise UsageError(
            f"{source.root} has no {PROTOCOL}",
            why="its samples are a benchmark's by a protocol, and without its card nobody could say which",
            mend="run the command that wrote it again: what is finished stays, and the card is written",
        )
    return read_record(source.root / PROTOCOL, ProtocolCard)


def _views(source: CompletePhase, config: RunConfig) -> Views:
    """By which the stored ids are read, as they were when they were drawn."""
    recorded = str(source.manifest.identity["grading.grader"])
    made_with = source.manifest.inputs["template"]
    asked = BenchmarkTurns({}) if source.manifest.is_by_protocol else None
    model, begun = LocalModel.resolve(config.model), source.manifest.inputs
    views = load_views(model, config.views, recorded, begun=begun, asked=asked)
    if views.fingerprint != made_with:
        raise UsageError(
            f"{config.model.path} has not the tokenizer and template of {source.root}",
            why=f"their fingerprint is {views.fingerprint}, and the samples were made with {made_with}",
            mend="give --model with the model that was evaluated, or a folder with its tokenizer and config.json",
        )
    return views


def _manifest(source: CompletePhase, config: RunConfig) -> Manifest:
    """What an evaluation with the new grader would have, and the one that its samples were drawn in."""
    grading = {key: value for key, value in flat_config(config).items() if key.startswith("grading.")}
    return Manifest(
        phase="eval",
        identity={**source.manifest.identity, **identity_of(config, "grading")},
        inputs={REGRADED: source.content_fingerprint, **source.manifest.inputs},  # of one that was regraded, its own
        config={**source.manifest.config, **grading, "eval.baseline": None},
        contents=source.manifest.contents,
    )


# --- what other graders say -----------------------------------------------------------------------------------------


def _by_graders(
    source: CompletePhase, regraded: CompletePhase, config: RunConfig, views: Views, stop: StopRequest
) -> Regraded:
    """The samples by the stored grades, the new ones, and graders that others use."""
    rows = [row for path in regraded.chunks() for row in read_rows(path, GradedRow)]
    samples, numbers = [row.sample for row in rows], Numbering()
    records = [numbers.of(one.key.question_id, one.question, one.options)[1] for one in samples]
    stored = [row.status for path in source.chunks() for row in read_rows(path, GradedRow)]
    verdicts = {STORED: stored, config.grading.grader: [row.status for row in rows]}
    for name, spec in _others(config):
        other = config.model_copy(update={"grading": config.grading.model_copy(update={"grader": spec})})
        with grader_pool(other) as graders:
            found: list[Grade] = grade_rows(views, graders, samples, stop)
        verdicts[name] = [grade.status.value for grade in found]
    seed, draws = config.eval.seed, config.eval.bootstrap
    return Regraded(
        source=str(source.root),
        accuracy={name: _accuracy(records, one, draws, seed) for name, one in verdicts.items()},
        not_graded={name: sum(not Status(status).valid for status in one) for name, one in verdicts.items()},
        disagreements=[
            Disagreement(row.sample.key.question_id, row.sample.key.sample_index, said)
            for row, said in zip(rows, _each(verdicts), strict=True)
            if len(set(said.values())) > 1
        ],
    )


def _others(config: RunConfig) -> Sequence[tuple[str, str]]:
    """A letter is no formula."""
    known = {"math-verify, last box": MATH_VERIFY, "last box, as a string": BOX}
    if config.grading.grader == "choice":
        del known["math-verify, last box"]
    return [(name, spec) for name, spec in known.items() if spec != config.grading.grader]


def _each(verdicts: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """Sample by sample, what each grader says."""
    for said in zip(*verdicts.values(), strict=True):
        yield dict(zip(verdicts, said, strict=True))


def _accuracy(records: Sequence[int], statuses: Sequence[str], draws: int, seed: int) -> Estimate:
    index = np.unique(records, return_inverse=True)[1]
    right = np.bincount(index, [status == Status.CORRECT for status in statuses])
    valid = np.bincount(index, [Status(status).valid for status in statuses])
    return share_of(right.astype(np.float64), valid.astype(np.float64), draws=draws, seed=seed)
