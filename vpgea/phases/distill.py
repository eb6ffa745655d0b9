"""Phase 3: the training step. Learns from a filter folder and publishes an adapter or a model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from vpgea.config.contradictions import require_consistent, tempered_control_variate
from vpgea.config.resolve import flat_config
from vpgea.config.schema import ModelConfig, RunConfig, identity_of, with_values
from vpgea.engines.lease import EngineLease
from vpgea.errors import QualityGateError, UsageError
from vpgea.modeling.contents import folder_content
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.clock import Clock
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.history import entropy_at_start
from vpgea.runs.layout import ADAPTER, CHECKPOINTS, COMPLETE, MODEL, OPTIMIZER, SUMMARY
from vpgea.runs.manifest import Manifest, require_contents
from vpgea.runs.parts import WHOLE, part_folder
from vpgea.runs.phase_folder import PhaseFolder, begun
from vpgea.runs.progress import NullProgress, Progress
from vpgea.runs.published import optimizer_fingerprint
from vpgea.runs.records import DistillSummary, FilterSummary, PartMarker
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import write_json
from vpgea.storage.records import from_json, json_of, read_record
from vpgea.training.carried import Carried, carried_by
from vpgea.training.data import TrainingSet
from vpgea.training.guards import epistemic_ids
from vpgea.training.loggers import Log, step_log
from vpgea.training.masters import masters_of
from vpgea.training.publish import publish, published_name
from vpgea.training.ranks import Ranks
from vpgea.training.requirements import require_trainable
from vpgea.training.roles import Roles, reference_model
from vpgea.training.trainer import Trainer
from vpgea.training.turn import training_turn

_ORDER: dict[str, object] = {"distill.order": "by seed, pass and round"}  # of an earlier version: by seed and pass
_OPTIMIZER_STATE = "distill.optimizer_state"
_ROUNDS_LEFT = "distill.rounds_left"  # of a schedule that falls over them; rounds may be added to a run later
_OF_FILTER = ("filter.advantage.group", "filter.advantage.kind", "filter.answerability.enabled")


def distill(
    config: RunConfig,
    filter_dir: Path,
    output_dir: Path,
    *,
    resume: bool = True,
    overwrite: bool = False,
    stop: StopRequest | None = None,
    progress: Progress | None = None,
    log: Log | None = None,
    ranks: Ranks | None = None,
    continued: bool = False,
    rounds_left: int = 1,
    lease: EngineLease | None = None,
) -> DistillSummary:
    """Train on a complete filter folder; return the summary. A stop writes a checkpoint first.

    `log` receives every line of metrics.jsonl as it is written, besides the loggers of the configuration. With several
    `ranks` each of them calls this with the same arguments; rank 0 writes what is not sharded. continued: it is a part
    of a run that was begun, which was asked then whether it can train. rounds_left: of that run, this one included;
    over them a schedule falls. lease: of the phases around, which lends what it holds and is offered what
    is published, as it was reloaded.

    Raises:
        UsageError: Other weights, other inputs.
        QualityGateError: Nothing to learn from, or the published weights differ after reloading.
        VpgeaError: Too many gradients are not finite.
        Stopped: A stop was requested.
    """
    stop, progress, ranks, clock = stop or StopRequest(), progress or NullProgress(), ranks or Ranks(), Clock()
    require_consistent(config)
    filtered = CompletePhase.open(filter_dir, "filter")
    model, held = LocalModel.resolve(config.model), lease.held if lease else None
    masters = masters_of(model) if config.distill.train == "full" else None
    before = None if overwrite else begun(output_dir)
    carried, optimizer = _taken_up(config, model, before, output_dir)
    manifest = _manifest(config, filtered, model, masters, optimizer, before, rounds_left)
    folder = PhaseFolder(output_dir, manifest)

    def is_trained() -> bool:
        return ranks.any(folder.is_complete or (output_dir / SUMMARY).is_file())

    with training_turn(folder.part, ranks, stop, progress) as turn:
        if not overwrite:
            # of a complete one nothing is left to write, perhaps nothing can be
            if not ranks.any(folder.is_complete) or ranks.any(turn.is_left_behind):
                turn.take()  # before a second model takes the first one's memory
            if is_trained():
                ranks.on_first(lambda: _finish_complete(folder, resume))
                return trained(output_dir)
        with ranks.together():  # before the folder is touched: a refused configuration leaves nothing behind
            is_begun = continued or (not overwrite and begun(output_dir) is not None)
            require_trainable(config, model, warn=_heard(progress, ranks) if is_begun else None, continued=continued)
            if ranks.is_first:  # which alone reads all bytes
                require_contents(f"{filtered.root} was made with", filtered.manifest.contents, folder.manifest.contents)
            data = _training_set(config, filtered, folder.manifest)
            with clock.on("loading"):
                roles = Roles(config, model, ranks, masters=masters, seed=data.torch_seed, held=held)
        ranks.on_first(lambda: PhaseFolder.open(output_dir, folder.manifest, resume=resume, overwrite=overwrite))
        # before anything takes its time: --overwrite deletes nothing from here on
        with folder.writing(), clock.kept(folder, writes=ranks.is_first):
            turn.take()
            if not is_trained():  # else a twin that began at the same moment has done it
                trainer = Trainer(
                    *(config, data, roles, folder, ranks),
                    epistemic=epistemic_ids(model.tokenizer),
                    first_entropy=entropy_at_start(output_dir),
                    carried=carried,
                    rounds_left=_rounds_left(manifest),
                )
                with step_log(config, output_dir, ranks) as logger, clock.on("training"):
                    trainer.run(stop, progress, [logger, log] if log else [logger])
                with clock.on("publishing"):
                    _publish(config, trainer, roles, folder, ranks, lease)
    return trained(output_dir)


def _manifest(
    config: RunConfig,
    filtered: CompletePhase,
    model: LocalModel,
    masters: LocalModel | None,
    optimizer: str | None,
    before: Manifest | None,
    rounds_left: int,
) -> Manifest:
    """What a training is made from.

    Args:
        config: Of the run.
        filtered: What is learned.
        model: To be trained.
        masters: Its float32 weights.
        optimizer: Fingerprint of the state that is carried over.
        before: With what the folder was begun, perhaps by another version.
        rounds_left: Of the run.
    """
    reference = reference_model(config)
    further = {"reference": reference, "masters": masters}
    contents = model.contents if reference is None else model.contents.with_folders(reference=reference.folder)
    identity = identity_of(config, "distill", "model") | _ORDER
    if config.distill.schedule != "constant" and config.distill.optimizer_state == "carried":
        identity[_ROUNDS_LEFT] = rounds_left if before is None else before.identity.get(_ROUNDS_LEFT)
    if before is not None:
        for key in (*_ORDER, _ROUNDS_LEFT, _OPTIMIZER_STATE):
            if key in identity and key not in before.identity:
                del identity[key]
    return Manifest(
        phase="distill",
        identity=identity,
        inputs={
            "filter": filtered.content_fingerprint,
            "model": model.fingerprint,
            **{name: other.fingerprint for name, other in further.items() if other is not None},
            **({} if optimizer is None else {"optimizer": optimizer}),
        },
        config=flat_config(config),
        contents=contents.with_known(selection=filtered.selection()),
    )


def _heard(progress: Progress, ranks: Ranks) -> Callable[[str], None]:
    """Where the warnings of every rank go: they are the same, and said once."""
    return progress.warn if ranks.is_first else _unsaid


def _unsaid(text: str) -> None:
    """Rank 0 says it."""


def _taken_up(
    config: RunConfig, model: LocalModel, before: Manifest | None, output_dir: Path
) -> tuple[Carried | None, str | None]:
    """The state that the optimiser goes on with, and its fingerprint; only that where all is trained.

    It may have been pruned since.
    """
    if before is not None and (output_dir / SUMMARY).is_file():
        return None, before.inputs.get("optimizer")
    carried = carried_by(_as_begun(config, before), model)
    return carried, None if carried is None else carried.fingerprint


def _as_begun(config: RunConfig, before: Manifest | None) -> RunConfig:
    """A training that an earlier version began, which carried nothing over, goes on as it was begun."""
    if before is None or _OPTIMIZER_STATE in before.identity:
        return config
    fresh: RunConfig = with_values(config, {_OPTIMIZER_STATE: "fresh"})
    return fresh


def _rounds_left(manifest: Manifest) -> int:
    """What a schedule falls over; 1 also where an earlier version began the training, or nothing falls."""
    found = manifest.identity.get(_ROUNDS_LEFT, 1)
    assert isinstance(found, int)
    return found


def _keeps_optimizer(manifest: Manifest) -> bool:
    return manifest.identity.get(_OPTIMIZER_STATE, "fresh") != "fresh"


def _finish_complete(folder: PhaseFolder, resume: bool) -> None:
    """All is trained and published: write the markers that are missing, and drop checkpoints. It was killed just
    before, or a marker was lost."""
    PhaseFolder.open(folder.root, folder.manifest, resume=resume)  # refuses what another configuration wrote
    summary = folder.root / SUMMARY
    if not summary.is_file():
        write_json(summary, json_of(trained(folder.root)))
    folder.complete(json_of(read_record(summary, DistillSummary)))
    shutil.rmtree(folder.part / CHECKPOINTS, ignore_errors=True)


def _publish(
    config: RunConfig, trainer: Trainer, roles: Roles, folder: PhaseFolder, ranks: Ranks, lease: EngineLease | None
) -> None:
    """What was trained becomes files, and the folder complete."""
    ranks.on_first(folder.require_ours)
    if _keeps_optimizer(folder.manifest):
        trainer.save_optimizer(folder.root / OPTIMIZER)
    trainer.release()
    published = publish(config, roles, trainer.data.paths, folder.root, ranks)
    ranks.on_first(lambda: _complete(config, trainer, folder, published.difference))
    if lease is not None and published.model is not None:
        lease.offer(config, trained_model(config, folder.root), published.model)


def _complete(config: RunConfig, trainer: Trainer, folder: PhaseFolder, difference: float) -> None:
    """Write the summary and mark the folder complete."""
    guards, data = trainer.guards, trainer.data
    published, optimizer = LocalModel.resolve(trained_model(config, folder.root)), folder.root / OPTIMIZER
    summary = DistillSummary(
        steps=trainer.next_step,
        paths=len(data.paths),
        trained_tokens=trainer.trained_tokens,
        skipped_steps=guards.skipped_steps,
        alarms=guards.alarms,
        ended_early=guards.ended,
        truncated_support=data.truncated_support,  # no importance weights then
        reload_difference=difference,
        engine_mismatch=trainer.old_logprobs.engine_mismatch(data.paths),
        output=published_name(config),
        model_fingerprint=published.fingerprint,
        content=folder_content(folder.root / published_name(config)),
        masters_fingerprint=None if (masters := masters_of(published)) is None else masters.fingerprint,
        optimizer_fingerprint=optimizer_fingerprint(optimizer) if _keeps_optimizer(folder.manifest) else None,
    )
    write_json(folder.root / SUMMARY, json_of(summary))
    folder.complete(json_of(summary))
    shutil.rmtree(trainer.checkpoints, ignore_errors=True)


def warnings_of(summary: DistillSummary) -> list[str]:
    """What people should hear of a training that is otherwise done."""
    found = []
    if summary.skipped_steps:
        found.append(f"{summary.skipped_steps} steps were left out: their gradient was not finite")
    if summary.alarms:
        found.append(f"entropy fell below distill.entropy_floor in {summary.alarms} steps; see metrics.jsonl")
    if summary.ended_early:
        found.append(f"training ended early: {summary.ended_early}")
    return found


def trained(output_dir: Path) -> DistillSummary:
    """The summary of a complete distill folder."""
    part = part_folder(output_dir, WHOLE)
    return from_json(DistillSummary, PartMarker.read(part).summary, part / COMPLETE)


def trained_model(config: RunConfig, output_dir: Path) -> ModelConfig:
    """Where the next phase finds the weights that a distill folder published."""
    change = (
        {"adapter": str(output_dir / ADAPTER)}
        if config.distill.train == "lora"
        else {"path": str(output_dir / MODEL), "adapter": None}
    )
    return config.model.model_copy(update=change)


def _training_set(config: RunConfig, filtered: CompletePhase, manifest: Manifest) -> TrainingSet:
    """What there is to learn, drawn from the weights that are to be trained."""
    summary = read_record(filtered.root / SUMMARY, FilterSummary)  # written last: else the selection may be half there
    filtered.require_selection(summary.selection)
    made = {key: filtered.manifest.identity[key] for key in _OF_FILTER if key in filtered.manifest.identity}
    require_consistent(with_values(config, made))  # with what was made, whatever is configured now
    data = TrainingSet(filtered, config.distill, by_round=_ORDER.items() <= manifest.identity.items())
    if data.model_fingerprint != manifest.inputs["model"]:
        raise UsageError(
            f"{filtered.root} holds samples of other weights",
            why=f"they were drawn from {data.model_fingerprint}, the configured model is {manifest.inputs['model']}",
            mend="give the model (--model) and adapter (--set model.adapter=...) that the rollout was drawn from",
        )
    if data.truncated_support and config.distill.is_dense and config.distill.kl_form == "dense-cv":
        raise tempered_control_variate(f"the samples in {filtered.root} were tempered or truncated")
    if not data.paths:
        raise QualityGateError(
            f"nothing to learn from in {filtered.root}",
            why="no path has a gate and no prior sample an advantage",
            mend="loosen the filter's thresholds or draw more samples",
        )
    return data
