"""Every file and folder name of a run, and the order in which numbered ones stand.

RUN/    config.yaml · metrics.jsonl · logs/ · slurm/ · damaged/ · repair.json · parts/0-of-1/manifest.json
        base/ eval/ · round.json
        round-000/ rollout/ · filter/ · distill/ · eval/ · round.json
PHASE/  manifest.json · COMPLETE · logs/ · parts/I-of-N/ manifest.json · COMPLETE · chunk-00000.arrow · ...
        of a chunk that is not whole yet: chunk-00000-WRITER.journal
  of a filter   selected/ · rejected/ · reference_lengths.json · summary.json; teacher-00000.arrow in its parts
  of a distill  adapter/ or model/ · masters/ · optimizer/ · summary.json · metrics.jsonl; checkpoints/ and old_logprobs
                in its part
  of an eval    results.json; protocol.json too where a protocol says how, summary.json where it was imported
EVAL --until-width    samples-0004/ · samples-0008/ · ...   an eval's folder for each number of samples per question
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

from vpgea.errors import UsageError

PARTS = "parts"
TRAINING_TURN = ".training.tmp"  # in the part's folder of a training: locked by the process whose turn it is
MANIFEST = "manifest.json"
COMPLETE = "COMPLETE"
LOGS = "logs"  # what servers of our own say; beside a phase's parts, of a loop in the run folder
TIMES = "times.jsonl"  # in a phase's logs: where the time of each attempt went

CHUNK = "chunk"  # chunk-00000.arrow: one shard per chunk of questions
TEACHER_SHARD = "teacher"  # teacher-00000.arrow beside it, where a filter stores its teacher

SETS = ("selected", "rejected")  # a filter's folders beside parts/, with a shard each for every chunk of the rollout
SUMMARY = "summary.json"  # of a filter, a distill and an import; written last
REFERENCE_LENGTHS = "reference_lengths.json"

ADAPTER, MODEL = "adapter", "model"
WEIGHTS = (ADAPTER, MODEL)
MASTERS = "masters"  # beside a model that was published rounded: its weights in float32, for the next training
OPTIMIZER = "optimizer"  # beside what was published: the optimiser's state, for the next training
PUBLISHED = (*WEIGHTS, MASTERS, OPTIMIZER)  # folders that a training leaves; they are kept and pruned together
METRICS = "metrics.jsonl"  # a line per optimiser step; in the run folder a line per round
CHECKPOINTS = "checkpoints"
CHECKPOINT_STATE, CHECKPOINT_CHECKSUMS = "state.json", "checksums.json"
MADE_FROM = "made_from"  # entry of a checkpoint's state: the fingerprint of its training
OLD_LOGPROBS = "old_logprobs.safetensors"

RESULTS = "results.json"
PROTOCOL = "protocol.json"  # of an evaluation by a benchmark's protocol: how it was asked, sampled and graded

CONFIG = "config.yaml"
BASE = "base"
ROUND_RECORD = "round.json"
DAMAGED = "damaged"  # what a repair has moved away
REPAIR = "repair.json"  # of a repair that is not finished, in the folder that it mends
LOGGERS = ("wandb", "tensorboard")  # folders that loggers make in a distill folder

NOT_LOOKED_INTO = frozenset({*WEIGHTS, MASTERS, LOGS, *LOGGERS, DAMAGED})  # may hold links, as caches do

JOURNAL = r"chunk-\d{5,}-[0-9a-f]{32}\.journal"  # what `new_journal` gives, as a pattern
_JOURNAL = re.compile(JOURNAL, re.ASCII)
_ROUND = re.compile(r"round-(\d{3,})", re.ASCII)
_CHECKPOINT = re.compile(r"step-(\d{6,})", re.ASCII)
_SAMPLES = re.compile(r"samples-(\d{4,})", re.ASCII)
_STEP = re.compile(r"base/eval|round-(\d{3,})/(rollout|filter|distill|eval)")

Phase = Literal["rollout", "filter", "distill", "eval"]
PHASES: tuple[Phase, ...] = ("rollout", "filter", "distill", "eval")


# --- chunks ---------------------------------------------------------------------------------------------------------


def chunk_name(index: int, kind: str = CHUNK) -> str:
    """File name of a chunk's shard."""
    return f"{kind}-{index:05d}.arrow"


def chunk_number(path: Path) -> int:
    """The inverse of `chunk_name`."""
    return int(path.stem.rpartition("-")[2])


def new_journal(index: int) -> str:
    """File name of a new journal of a chunk: every writer has its own."""
    return f"{CHUNK}-{index:05d}-{uuid4().hex}.journal"


def journal_chunk(name: str) -> int | None:
    """The chunk of a journal; None for every other file."""
    return int(name.split("-")[1]) if _JOURNAL.fullmatch(name) else None


# --- evaluations of a growing number of samples ---------------------------------------------------------------------


def samples_dir(folder: Path, samples: int) -> Path:
    """Where an evaluation of so many samples per question stands in the folder of one that grows."""
    return folder / f"samples-{samples:04d}"


def samples_numbers(folder: Path) -> list[int]:
    """Numbers of samples per question of which there is a folder, rising."""
    matches = (_SAMPLES.fullmatch(path.name) for path in folder.glob("samples-*"))
    return sorted(int(match[1]) for match in matches if match and samples_dir(folder, int(match[1])).name == match[0])


# --- checkpoints ----------------------------------------------------------------------------------------------------


def checkpoint_dir(folder: Path, step: int) -> Path:
    """Where a training keeps its state after so many optimiser steps; folder: that of its checkpoints."""
    return folder / f"step-{step:06d}"


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps of which a checkpoint is there, in their order."""
    matches = (_CHECKPOINT.fullmatch(path.name) for path in folder.glob("step-*"))
    return sorted(step for match in matches if match and checkpoint_dir(folder, step := int(match[1])).name == match[0])


# --- steps and rounds -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One phase of one round; its name is the place of its folder in the run folder."""

    round: int | None  # None: the base model's evaluation, which comes before the first round
    phase: Phase

    def __str__(self) -> str:
        return f"{round_name(self.round)}/{self.phase}"

    @classmethod
    def parse(cls, text: str) -> Step:
        """The inverse of str().

        Raises:
            UsageError: The text names no step.
        """
        match = _STEP.fullmatch(text)
        if match is None:
            raise UsageError(
                f"no such step: {text}",
                why="a step is named as its folder in the run folder",
                mend="give base/eval, or a round and its phase, such as round-003/rollout",
            )
        if match[1] is None:
            return cls(None, "eval")
        return cls(int(match[1]), next(phase for phase in PHASES if phase == match[2]))

    def folder(self, run_dir: Path) -> Path:
        """The phase folder of the step."""
        return run_dir / str(self)


def round_phases(index: int | None) -> tuple[Phase, ...]:
    """The phases of a round in their order; the base model (None) is only evaluated."""
    return ("eval",) if index is None else PHASES


def all_steps(rounds: int, phases: Callable[[int | None], tuple[Phase, ...]] = round_phases) -> list[Step]:
    """The steps of a run in their order: each needs the one before it. phases: of each of its rounds."""
    return [Step(index, phase) for index in (None, *range(rounds)) for phase in phases(index)]


def round_name(index: int | None) -> str:
    """Folder name of a round; None: of the base model."""
    return BASE if index is None else f"round-{index:03d}"


def round_dir(run_dir: Path, index: int | None) -> Path:
    """Folder of a round; None: of the base model."""
    return run_dir / round_name(index)


def round_record(run_dir: Path, index: int | None) -> Path:
    """The file that a finished round has, with its line of figures; of the base model (None), too."""
    return round_dir(run_dir, index) / ROUND_RECORD


def round_numbers(run_dir: Path) -> list[int]:
    """Rounds that have a folder, in the order in which they are made: by number, also from round-1000 on."""
    matches = (_ROUND.fullmatch(path.name) for path in run_dir.glob("round-*"))
    return sorted(index for match in matches if match and match[0] == round_name(index := int(match[1])))


def last_file(run_dir: Path, step: Step, phases: tuple[Phase, ...]) -> Path | None:
    """What is derived from all parts of a step, and written last; None where the phase's own marker says all.

    phases: of its round, whose record follows the last of them.
    """
    if step.phase == "filter":
        return step.folder(run_dir) / SUMMARY
    return round_record(run_dir, step.round) if step.phase == phases[-1] else None


def is_phase_finished(folder: Path, phase: Phase) -> bool:
    """Whether all of a phase is there: its marker, and what is derived from its parts after it or beside it."""
    last = {"filter": SUMMARY, "distill": SUMMARY, "eval": RESULTS}.get(phase)
    return (folder / COMPLETE).is_file() and (last is None or (folder / last).is_file())


def is_run(root: Path) -> bool:
    """Whether a folder is a loop's, by what stands in it: its own records may be what is damaged."""
    return (root / CONFIG).is_file() or any(round_dir(root, index).is_dir() for index in (None, 0))
