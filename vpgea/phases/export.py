"""The weights of a run as a folder of their own: an adapter, a model, or an adapter merged into its base."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpgea import __version__
from vpgea.config.resolve import resolve_recorded
from vpgea.config.schema import ModelConfig, RunConfig
from vpgea.errors import QualityGateError, UsageError, did_you_mean
from vpgea.inspection.folders import read_manifest, run_config
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.policy import completion_logprobs
from vpgea.modeling.weight_files import CANARY, CHECKSUMS, write_checksums
from vpgea.phases.distill import trained, trained_model
from vpgea.phases.schedule import best_round
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.history import all_lines, read_line
from vpgea.runs.layout import WEIGHTS, round_dir
from vpgea.runs.overwriting import is_published
from vpgea.runs.published import require_published
from vpgea.runs.records import Canary, RoundLine
from vpgea.storage.files import file_checksum, publish_folder, said_of, write_json
from vpgea.storage.records import json_of, read_record
from vpgea.training.publish import RELOAD_TOLERANCE

RECORD = "vpgea_export.json"
_ADAPTER_ONLY = ("adapter_config.json", "adapter_model.safetensors", "README.md", CANARY, CHECKSUMS)
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Published weights. round and figures: of a loop's round, None and empty for a distill folder by itself."""

    distilled: CompletePhase
    config: RunConfig
    output: str
    fingerprint: str
    round: int | None = None
    figures: RoundLine | None = None

    @property
    def folder(self) -> Path:
        return self.distilled.root / self.output

    @property
    def model(self) -> ModelConfig:
        """What was trained, as a model to load: the base with the adapter, or the model."""
        return trained_model(self.config, self.distilled.root)


def export(
    source: Path,
    output_dir: Path,
    *,
    round_name: str | None = None,
    merge: bool = False,
    base: str | None = None,
    overwrite: bool = False,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Copy or merge the weights of a distill or loop folder to output_dir; return what vpgea_export.json says.

    Args:
        source: The distill or loop folder.
        output_dir: Where the weights go.
        round_name: A number or `best`, of a loop folder.
        merge: Write a whole model, not its adapter.
        base: Where the base model is now, if not where it was.
        overwrite: Replace what stands at output_dir.
        say: Told of each longer step.

    Raises:
        UsageError: No such weights, or the folder is in use.
        QualityGateError: No round is good enough, or the weights do not give the recorded log-probabilities.
    """
    weights = find_weights(source, round_name, base)
    if merge and weights.output != "adapter":
        raise UsageError(
            f"there is nothing to merge in {weights.folder}",
            why="distill.train=full: it is a whole model already",
            mend="leave out --merge",
        )
    output_dir = output_dir.resolve()
    _require_free(output_dir, overwrite)
    temporary = output_dir.parent / f".{output_dir.name}.vpgea-export.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    record = {
        "kind": "merged model" if merge else weights.output,
        "source": str(source.absolute()),
        "round": weights.round,
        "figures": None if weights.figures is None else weights.figures.as_json(),
        "model_fingerprint": weights.fingerprint,
        "distill_fingerprint": weights.distilled.content_fingerprint,
        "base": weights.config.model.path if weights.output == "adapter" else None,
        "vpgea_version": __version__,
    }
    try:
        with said_of(output_dir, temporary):
            record |= _merge(weights, temporary, say) if merge else _copy(weights, temporary, say)
            write_json(temporary / RECORD, record)
            publish_folder(temporary, output_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return record


def find_weights(source: Path, round_name: str | None, base: str | None = None) -> Trained:
    """The published weights of a distill folder, or of one round of a loop folder."""
    if not source.is_dir():
        raise UsageError(
            f"folder not found: {source}", why="there is nothing there", mend="give a loop or distill folder"
        )
    phase = read_manifest(source).phase
    if phase == "distill":
        if round_name is not None:
            raise UsageError(
                f"{source} is a distill folder", why="it has one set of weights, no rounds", mend="leave out --round"
            )
        return _trained(source, base)
    if phase != "loop":
        raise UsageError(
            f"{source} is a {phase} folder", why="it holds no weights", mend="give a loop or distill folder"
        )
    index = _round_index(source, round_name or "best")
    figures = read_line(source, index)
    distill_dir = round_dir(source, index) / "distill"
    if not any((distill_dir / name).is_dir() for name in WEIGHTS):
        left = [i for i in _finished(source) if any((round_dir(source, i) / "distill").glob(f"*/{CANARY}"))]
        raise UsageError(
            f"the weights of round {index} are gone",
            why="they were pruned by loop.keep_rounds; the round's data and figures are still there",
            mend=f"rounds that still have weights: {', '.join(map(str, left)) or 'none'}",
        )
    return _trained(distill_dir, base, index, figures)


def _trained(
    distill_dir: Path, base: str | None, index: int | None = None, figures: RoundLine | None = None
) -> Trained:
    distilled = CompletePhase.open(distill_dir, "distill")
    options = {} if base is None else {"model.path": base}
    unused = ("grading.", "sglang.")  # nothing is graded, and no server started
    recorded = {key: value for key, value in distilled.manifest.config.items() if not key.startswith(unused)}
    config = resolve_recorded(f"distill folder {distill_dir}", recorded, options=options)
    summary = trained(distill_dir)
    return Trained(
        distilled=distilled,
        config=config,
        output=summary.output,
        fingerprint=summary.model_fingerprint,
        round=index,
        figures=figures,
    )


def _round_index(run_dir: Path, name: str) -> int:
    """The round's number; `best` is that of highest e3 among those that kept their accuracy."""
    finished = _finished(run_dir)
    known = f"finished rounds: {', '.join(map(str, finished)) or 'none'}"
    if name != "best":
        if not name.isdecimal() or int(name) not in finished:
            mend = did_you_mean(name, ("best",), "give --round with one of these, or best")
            raise UsageError(f"no such round: {name}", why=known, mend=mend)
        return int(name)
    if not finished:
        raise UsageError(f"no round of {run_dir} is finished", why=known, mend="run `vpgea loop` again: it continues")
    config = run_config(run_dir, read_manifest(run_dir))
    best = best_round(run_dir, config)
    if best is None:
        raise QualityGateError(
            f"no round of {run_dir} is good enough to be the best",
            why="held-out accuracy is below the base model's by more than chance and loop.accuracy_margin="
            f"{config.loop.accuracy_margin:g} in every round",
            mend=f"give --round with a number to have one all the same; {known}",
        )
    return best


def _finished(run_dir: Path) -> list[int]:
    return [line.round for line in all_lines(run_dir) if line.round is not None]


def _require_free(output_dir: Path, overwrite: bool) -> None:
    """Only an empty folder is written to, or with overwrite an earlier export: anything else is left alone."""
    try:
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        occupied = output_dir.exists() and any(output_dir.iterdir())
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(
            f"cannot write to {output_dir}", why=error.strerror or str(error), mend="choose another --output-dir"
        ) from error
    if not occupied:
        return
    if not (output_dir / RECORD).is_file():
        raise UsageError(
            f"cannot write to {output_dir}",
            why=f"it holds files that are not of an export (no {RECORD}), and is left alone",
            mend="choose another --output-dir",
        )
    if not overwrite:
        raise UsageError(
            f"cannot write to {output_dir}",
            why="it holds an earlier export",
            mend="choose another --output-dir, or replace it with --overwrite",
        )
    if foreign := sorted(path.name for path in output_dir.iterdir() if not is_published(path.name)):
        raise UsageError(
            f"--overwrite will not delete {output_dir}",
            why=f"beside an earlier export it holds {', '.join(foreign[:5])}",
            mend="move that away, or choose another --output-dir",
        )


def _copy(weights: Trained, target: Path, say: Say) -> dict[str, Any]:
    """The published folder as it is. The fingerprint of an adapter needs its base, which is not downloaded for that."""
    checked = weights.output == "model" or Path(weights.config.model.path).is_dir()
    if checked:
        _require_published(weights, LocalModel.resolve(weights.model))
    else:
        say(f"the base model {weights.config.model.path} is no folder here: the fingerprint was not compared")
    shutil.copytree(weights.folder, target)
    for file in sorted(file for file in weights.folder.rglob("*") if file.is_file()):
        if file_checksum(file) != file_checksum(target / file.relative_to(weights.folder)):
            raise QualityGateError(
                f"{file.name} was not copied whole", why="the copy's checksum differs", mend="check the disk, try again"
            )
    return {"fingerprint_checked": checked}


def _require_published(weights: Trained, model: LocalModel) -> None:
    require_published(model)
    found = model.fingerprint
    if found != weights.fingerprint:
        raise UsageError(
            f"the weights in {weights.folder} are not those that were published",
            why=f"their fingerprint is {found}, {weights.fingerprint} was published: "
            "they, or the base model below the adapter, were changed",
            mend="restore the files, or give the base model it was trained on with --model",
        )


def _merge(weights: Trained, target: Path, say: Say) -> dict[str, Any]:
    """Base plus adapter as one model, merged in float32, stored in the base's dtype, reloaded and compared."""
    from transformers import AutoConfig

    adapted = LocalModel.resolve(weights.model)
    _require_published(weights, adapted)
    canary = read_record(weights.folder / CANARY, Canary)
    computed = getattr(torch, canary.dtype.removeprefix("torch."))
    stored = AutoConfig.from_pretrained(adapted.folder, trust_remote_code=adapted.config.trust_remote_code).dtype
    stored = torch.float32 if stored is None else stored
    tolerance = max(RELOAD_TOLERANCE.get(dtype, RELOAD_TOLERANCE[torch.float32]) for dtype in (computed, stored))
    as_computed = adapted.in_dtype(str(computed).removeprefix("torch."))
    say("checking the adapter on its base")
    published = torch.cat([torch.tensor(path.logprobs) for path in canary.paths])
    before = _canary_logprobs(load_model(as_computed), canary)
    _require_close(before, published, tolerance, "the adapter on its base does not give what was published")
    say("merging")
    model = load_model(adapted.in_dtype("float32"))
    merged = model.merge_and_unload(safe_merge=True).to(stored)
    merged.config.dtype = stored
    merged.save_pretrained(target, safe_serialization=True)
    del model, merged
    for file in weights.folder.iterdir():  # what is left beside the adapter are the base's tokenizer files
        if file.name not in _ADAPTER_ONLY:
            shutil.copyfile(file, target / file.name)
    say("reloading the merged model")
    after = _canary_logprobs(load_model(_without_adapter(target, as_computed)), canary)
    _require_close(after, before, tolerance, "the merged model differs from the adapter on its base")
    _write_canary(target, canary, after)
    write_checksums(target)
    return {
        "model_fingerprint": _without_adapter(target, adapted).fingerprint,
        "adapter_fingerprint": weights.fingerprint,
        "dtype": str(stored).removeprefix("torch."),
        "canary": {
            "before_difference": float((before - published).abs().max()),
            "merge_difference": float((after - before).abs().max()),
            "tolerance": tolerance,
        },
    }


def _without_adapter(folder: Path, model: LocalModel) -> LocalModel:
    """The merged folder as any user of transformers loads it: nothing of the adapter, nothing of ours."""
    change = {"path": str(folder), "adapter": None, "revision": None}
    return LocalModel.resolve(model.config.model_copy(update=change))


def _canary_logprobs(model: Any, canary: Canary) -> Tensor:
    """float32 (T,): log-probabilities of the canary's completions, paths in order."""
    sequences, starts = [path.ids for path in canary.paths], [path.start for path in canary.paths]
    return completion_logprobs(model, sequences, starts).float().cpu()


def _require_close(found: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    difference = float((found - wanted).abs().max())
    if not difference <= tolerance:  # a NaN is not close either
        raise QualityGateError(
            what,
            why=f"log-probabilities of the canary paths differ by {difference:.2g}, {tolerance:g} is allowed",
            mend="check that base and adapter belong together; if they do, please report the model's architecture",
        )


def _write_canary(folder: Path, canary: Canary, logprobs: Tensor) -> None:
    """The merged model's own canary beside its weights."""
    lengths = [len(path.logprobs) for path in canary.paths]
    parts = torch.split(logprobs, lengths)
    paths = [replace(path, logprobs=part.tolist()) for path, part in zip(canary.paths, parts, strict=True)]
    write_json(folder / CANARY, json_of(Canary(canary.dtype, paths)))
