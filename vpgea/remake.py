"""The second half of a repair: the phases that have lost something run again, and make only that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vpgea.config import RunConfig
from vpgea.distill import distill, trained_model
from vpgea.engines.select import LOGS, EngineLease
from vpgea.errors import UsageError
from vpgea.evaluate import evaluate
from vpgea.filter import filter_rollout
from vpgea.loop import Loop, round_dir, round_questions
from vpgea.phase_integrity import Finding
from vpgea.progress import Reporter
from vpgea.questions import load_questions
from vpgea.resolve import resolve
from vpgea.rollout import RolloutPlan, rollout
from vpgea.runs import Manifest, Shard, content_fingerprint, part_folders
from vpgea.shards import read_json
from vpgea.stopping import StopRequest

_PART = re.compile(r"(\d+)-of-(\d+)")


def phase_manifest(root: Path) -> Manifest:
    """What a folder came from, by the first of its manifests that is whole. Raises UsageError without one."""
    for place in (root, *part_folders(root)):
        try:
            return Manifest.read(place / "manifest.json")
        except UsageError:
            continue
    raise UsageError(
        f"nothing says what {root} was made from",
        why="none of its manifests is whole",
        mend="run the command that wrote it again, with the same options: it makes only what is missing",
    )


def remake_phase(
    root: Path, manifest: Manifest, findings: Sequence[Finding], stop: StopRequest, reporter: Reporter
) -> None:
    """Run the parts of a phase that have lost something, as recorded.

    Raises UsageError when its source is not the folder beside it, and whatever the phase raises.
    """
    config = resolve(inherited=[(f"folder {root}", manifest.config)]).config
    source = _source(root, manifest)
    for shard in _parts(root, manifest, findings):
        reporter.info(f"{manifest.phase}: part {shard[0]}/{shard[1]} runs again, for what it lacks")
        if manifest.phase == "rollout":
            questions, number = load_questions(config.data).questions, manifest.identity["round"]
            rollout(RolloutPlan.make(config, questions, shard=shard, round_index=number), root, stop=stop)
        elif manifest.phase == "eval":
            evaluate(config, load_questions(config.data).questions, root, shard=shard, stop=stop)
        elif manifest.phase == "filter":
            filter_rollout(config, source, root, shard=shard, stop=stop)
        else:
            distill(config, source, root, stop=stop)


def _source(root: Path, manifest: Manifest) -> Path:
    """The folder that a filter or a distillation reads: the one beside it, if it is the one that was read."""
    name = {"filter": "rollout", "distill": "filter"}.get(manifest.phase, "")
    folder = root.absolute().parent / name
    if name and (not (folder / "COMPLETE").is_file() or content_fingerprint(folder) != manifest.inputs[name]):
        raise UsageError(
            f"the {name} that {root} was made from is not at {folder}",
            why=f"a {manifest.phase} does not record where its {name} was, and what was damaged is set aside",
            mend=f"run `vpgea {manifest.phase} {name.upper()}_FOLDER --output-dir {root}` with the same options",
        )
    return folder


def _parts(root: Path, manifest: Manifest, findings: Sequence[Finding]) -> list[Shard]:
    """The parts that lost something, or are gone; the first when only what is derived from all of them is lost."""
    count = manifest.shard[1]
    hit = {int(found[1]) for finding in findings for path in finding.aside if (found := _PART.search(str(path)))}
    there = {int(part.name.split("-of-")[0]) for part in part_folders(root)}
    return [(index, count) for index in sorted(hit | (set(range(count)) - there) or {0})]


def remake_run(run_dir: Path, findings: Sequence[Finding], stop: StopRequest, reporter: Reporter) -> None:
    """Run the phases of a loop's rounds that have lost something, in the order of the loop."""
    config = _run_config(run_dir)
    loop = Loop.open(config, run_dir, reporter=reporter, stop=stop)  # writes records of the run that are missing
    homes = ["base", *(f"round-{index:03d}" for index in range(config.loop.rounds))]
    with EngineLease(run_dir / LOGS, stop, publishes=run_dir, replaceable=loop._replaceable) as lease:
        for number, home in enumerate(homes):
            hit = {finding.phase.name for finding in findings if finding.phase.parts[:1] == (home,)}
            for phase in ("rollout", "filter", "distill", "eval", home):
                if phase in hit:
                    remake_step(loop, number - 1, phase, lease)


def _run_config(run_dir: Path) -> RunConfig:
    """The configuration of the run's last call; when its record is lost, of its first."""
    if (run_dir / "config.yaml").is_file():
        return resolve(file=run_dir / "config.yaml").config
    return resolve(inherited=[(f"folder {run_dir}", phase_manifest(run_dir).config)]).config


def remake_step(loop: Loop, index: int, phase: str, lease: EngineLease) -> None:
    """One phase of one round, which makes what it lacks; index -1 is the base. The round's own name: its record."""
    if index < 0:
        if phase == "eval":
            loop._evaluate(loop.config, loop.run_dir / "base" / "eval", "base", lease)
        else:
            loop._base(lease)
        return
    folder = round_dir(loop.run_dir, index)
    lines = [read_json(loop.run_dir / "base" / "round.json")]
    lines += [read_json(round_dir(loop.run_dir, before) / "round.json") for before in range(index)]
    config = loop._round_config(index, lines)
    if phase == "rollout":
        questions = round_questions(loop.questions, index, loop.config.loop.questions_per_round, config.rollout.seed)
        rollout(RolloutPlan.make(config, questions, round_index=index), folder / "rollout", lease=lease, stop=loop.stop)
    elif phase == "filter":
        filter_rollout(config, folder / "rollout", folder / "filter", lease=lease, stop=loop.stop)
    elif phase == "distill":
        lease.release()
        distill(config, folder / "filter", folder / "distill", stop=loop.stop)
    elif phase == "eval":
        tuned = config.model_copy(update={"model": trained_model(config, folder / "distill")})
        loop._evaluate(tuned, folder / "eval", f"round {index}", lease)
    else:
        loop._round(index, lines, lease)
