"""Rounds of rollout, filter, distill and a quick evaluation, as a state machine that lives in the run folder.

What is done is read from the phases' own markers: a step that is complete is skipped, one that is not continues. One
process takes all steps (`run`), or each is a job of its own on a cluster (`step`).
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpgea.config.resolve import dump_yaml, flat_config, resolve
from vpgea.config.schema import RunConfig, identity_of
from vpgea.engines.lease import EngineLease
from vpgea.errors import QualityGateError, UsageError
from vpgea.modeling.fingerprint import model_fingerprint
from vpgea.phases.distill import distill, trained, trained_model, warnings_of
from vpgea.phases.evaluate import evaluate
from vpgea.phases.filter import filter_rollout
from vpgea.phases.rollout import RolloutPlan, rollout, rollout_summary
from vpgea.phases.schedule import (
    TrainingFigures,
    best_round,
    ended_early,
    held_out_data,
    last_reference_kl,
    length_price,
    line_of,
    round_questions,
)
from vpgea.prompts.views import load_views
from vpgea.questions.load import Question, chunk_questions, fingerprint_questions, load_questions
from vpgea.runs.complete_phase import chunk_paths
from vpgea.runs.history import finished_lines
from vpgea.runs.layout import (
    CHECKPOINTS,
    COMPLETE,
    CONFIG,
    LOGS,
    MANIFEST,
    METRICS,
    PHASES,
    REFERENCE_LENGTHS,
    RESULTS,
    SUMMARY,
    WEIGHTS,
    Phase,
    Step,
    last_file,
    round_dir,
    round_numbers,
    round_record,
)
from vpgea.runs.links import refuse_links_in
from vpgea.runs.manifest import Manifest, require_same
from vpgea.runs.parts import WHOLE, Part, begun_parts, part_folder, part_folders
from vpgea.runs.phase_folder import PhaseFolder, complete_phase
from vpgea.runs.progress import NullReporter, Reporter
from vpgea.runs.records import DistillSummary, EvalResults, FilterSummary, RoundLine
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import write_if_new, write_json
from vpgea.storage.records import read_record
from vpgea.training.ranks import Ranks

OnRound = Callable[[RoundLine], None]


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A run folder with everything that its rounds share."""

    config: RunConfig
    run_dir: Path
    questions: list[Question]
    held_out: list[Question]
    manifest: Manifest
    reporter: Reporter
    stop: StopRequest

    @classmethod
    def open(
        cls,
        config: RunConfig,
        run_dir: Path,
        *,
        resume: bool = True,
        overwrite: bool = False,
        offline: bool = False,
        reporter: Reporter | None = None,
        stop: StopRequest | None = None,
    ) -> Loop:
        """Read both question sets and open the run folder. Raises UsageError when it holds another run."""
        loop = cls.read(config, run_dir, offline=offline, reporter=reporter, stop=stop)
        if not overwrite:
            refuse_links_in(run_dir, *(round_dir(run_dir, index) for index in (None, *round_numbers(run_dir))))
        PhaseFolder.open(run_dir, loop.manifest, resume=resume, overwrite=overwrite)
        write_if_new(run_dir / CONFIG, dump_yaml(loop.config).encode())
        return loop

    @classmethod
    def read(
        cls,
        config: RunConfig,
        run_dir: Path,
        *,
        offline: bool = False,
        reporter: Reporter | None = None,
        stop: StopRequest | None = None,
    ) -> Loop:
        """Read both question sets; touch no folder. Raises UsageError."""
        config = _with_absolute_paths(config)
        _require_teacher(config)
        questions = load_questions(config.data, offline=offline).questions
        held_out = load_questions(held_out_data(config), offline=offline).questions
        _require_disjoint(questions, held_out)
        manifest = Manifest(
            phase="loop",
            identity=identity_of(
                config, "model", "data", "views", "rollout", "grading", "filter", "distill", "eval", "loop"
            ),
            inputs={
                "model": model_fingerprint(config.model),
                "questions": fingerprint_questions(questions),
                "held-out questions": fingerprint_questions(held_out),
                "template": load_views(config).fingerprint,
            },
            config=flat_config(config),
        )
        return cls(
            config=config,
            run_dir=run_dir,
            questions=questions,
            held_out=held_out,
            manifest=manifest,
            reporter=reporter or NullReporter(),
            stop=stop or StopRequest(),
        )

    def require_opened(self) -> None:
        """For single steps of a run that was opened before, perhaps by a process on another machine.

        Raises UsageError when it was not, or was another.
        """
        manifest = part_folder(self.run_dir, WHOLE) / MANIFEST
        if not manifest.is_file():
            raise UsageError(
                f"not the folder of a loop: {self.run_dir}",
                why=f"{manifest} is not there",
                mend="start the run with `vpgea loop` or `vpgea slurm submit` before single steps of it",
            )
        require_same(self.run_dir, Manifest.read(manifest), self.manifest)

    @property
    def finished(self) -> int:
        """Rounds that are complete, without a gap from the first on."""
        return next(index for index in itertools.count() if not round_record(self.run_dir, index).is_file())

    def run(self, on_round: OnRound = lambda line: None) -> list[RoundLine]:
        """All rounds that are missing; returns one line per finished round, the base model's first.

        Raises what the phases raise; everything finished stays.
        """
        with self._lease(self.run_dir / LOGS) as lease:
            lines = finished_lines(self.run_dir)
            for line in lines:
                on_round(line)
            if lines:
                self._record(lines)
            for index in range(len(lines) - 1, self.config.loop.rounds):
                if reason := ended_early(self.config, lines):
                    self.reporter.warn(f"the loop ends after round {index - 1}: {reason}")
                    break
                lines.append(self._round(index if lines else None, lines, lease))
                on_round(lines[-1])
                self._record(lines)
        return lines

    def step(self, step: Step, *, part: Part = WHOLE, ranks: Ranks | None = None) -> bool:
        """One part of one step, as a job of a cluster takes it; True once the whole step is done.

        What comes before must be complete, and is settled here where the last of its parts could not: two parts that
        end together may each miss the other's marker on a slow shared file system. A step that is done, or comes after
        the loop has ended early, is nothing to do. Several ranks may train together: each calls this. Raises what the
        phases raise.
        """
        ranks = ranks or Ranks()
        if round_record(self.run_dir, step.round).is_file():
            return True
        refuse_links_in(self.run_dir, self._folder(step).parent)
        if step.round is None:
            return self.take(step, [], part=part)
        before = step.round
        ranks.on_first(lambda: self._settle_rounds(before))
        lines = self.lines_before(before)
        if reason := ended_early(self.config, lines):
            self.reporter.warn(f"{step} is not needed: {reason}")
            return True
        ranks.on_first(lambda: self._settle_phases(step))
        return self.take(step, lines, part=part, ranks=ranks)

    def take(self, step: Step, lines: Sequence[RoundLine], *, part: Part = WHOLE, ranks: Ranks | None = None) -> bool:
        """Do a part of a step, also where its round is finished, without a look at others. lines: of earlier rounds."""
        with self._lease(self.run_dir / LOGS) as lease:
            is_done = self._take(step, lines, lease, part, ranks or Ranks())
        if step.phase == "eval" and is_done and not round_record(self.run_dir, step.round).is_file():
            self._finish(step.round, lines)
            self._record(finished_lines(self.run_dir))
        return is_done

    def lines_before(self, index: int | None) -> list[RoundLine]:
        """What a round is decided by: the lines of the base model and of every round before it. None: the base."""
        return [] if index is None else finished_lines(self.run_dir)[: index + 1]

    def _lease(self, logs: Path) -> EngineLease:
        return EngineLease(logs, self.stop, publishes=self.run_dir, replaceable=self._replaceable)

    def _replaceable(self) -> set[str]:
        """Fingerprints of the weights that a server behind a URL may have when this run comes to it: only its own."""
        base = {model_fingerprint(self.config.model)}
        if self.config.distill.train == "lora":
            return base
        trainings = (Step(index, "distill").folder(self.run_dir) for index in round_numbers(self.run_dir))
        summaries = (folder / SUMMARY for folder in trainings if (folder / SUMMARY).is_file())
        return base | {read_record(path, DistillSummary).model_fingerprint for path in summaries}

    def _record(self, lines: Sequence[RoundLine]) -> None:
        """What follows from the finished rounds: the run's metrics, and which weights are kept."""
        write_if_new(self.run_dir / METRICS, "".join(json.dumps(line.as_json()) + "\n" for line in lines).encode())
        self._prune(len(lines) - 2)

    def _settle_rounds(self, before: int) -> None:
        """The rounds before one are finished, or become so from complete parts, up to where the loop ended early."""
        for index in [None, *range(before)][len(finished_lines(self.run_dir)) :]:
            if ended_early(self.config, finished_lines(self.run_dir)):
                return
            self._settle(Step(index, "eval"))

    def _settle_phases(self, step: Step) -> None:
        """So are the phases of a step's round that come before it."""
        for phase in PHASES[: PHASES.index(step.phase)]:
            self._settle(Step(step.round, phase))

    def _settle(self, step: Step) -> None:
        """Raises UsageError when some part of a step is not complete."""
        folder, parts = self._folder(step), self._parts(step)
        folders = [part_folder(folder, part) for part in parts]
        if any(not (part / COMPLETE).is_file() for part in folders):
            raise UsageError(
                f"{step} is not complete",
                why="the step that was asked for comes after it",
                mend="run what is missing first; `vpgea slurm status RUN` lists it",
            )
        if not (folder / COMPLETE).is_file():  # else every part of an array would derive it from all parts again
            complete_phase(folder)
        last = last_file(self.run_dir, step)
        # a training that was killed right after it was complete has left its checkpoints, which nobody needs
        if (last is not None and not last.is_file()) or (folders[0] / CHECKPOINTS).is_dir():
            self.take(step, finished_lines(self.run_dir), part=parts[0])

    def _round(self, index: int | None, lines: Sequence[RoundLine], lease: EngineLease) -> RoundLine:
        """All steps of one round (None: the base model's evaluation), its figures written last.

        The evaluation and the next round's rollout have the same weights, and so one engine; none is open while
        training has the machine.
        """
        began = time.perf_counter()
        phases: Sequence[Phase] = ("eval",) if index is None else PHASES
        for phase in phases:
            step = Step(index, phase)
            for part in self._parts(step):
                self._take(step, lines, lease, part, Ranks())
        return self._finish(index, lines, round(time.perf_counter() - began, 1))

    def _take(self, step: Step, lines: Sequence[RoundLine], lease: EngineLease, part: Part, ranks: Ranks) -> bool:
        """Whether the whole step is done now. Raises QualityGateError with the way out of a loop."""
        do = {
            "rollout": lambda: self._rollout(step, lines, lease, part),
            "filter": lambda: self._filter(step, lines, lease, part),
            "distill": lambda: self._distill(step, lines, lease, ranks),
            "eval": lambda: self._evaluate(step, lines, lease, part),
        }[step.phase]
        try:
            do()
        except QualityGateError as error:
            raise QualityGateError(
                f"{step}: {error.what}",
                why=error.why,
                mend=f"{error.mend}. Settings that change results need another --output-dir; to make only this step "
                f"again, delete its folder {self._folder(step)}",
            ) from error
        return (self._folder(step) / COMPLETE).is_file()

    def _rollout(self, step: Step, lines: Sequence[RoundLine], lease: EngineLease, part: Part) -> None:
        assert step.round is not None
        config = self._round_config(step.round, lines)
        questions = round_questions(
            self.questions, step.round, self.config.loop.questions_per_round, config.rollout.seed
        )
        plan = RolloutPlan.make(config, questions, part=part, round_index=step.round)
        own = sum(len(plan.chunks[chunk]) for chunk in plan.own_chunks)
        with self.reporter.progress(own, f"{_label(step)}: questions") as progress:
            rollout(plan, self._folder(step), lease=lease, stop=self.stop, progress=progress)

    def _filter(self, step: Step, lines: Sequence[RoundLine], lease: EngineLease, part: Part) -> None:
        assert step.round is not None
        config, source = self._round_config(step.round, lines), round_dir(self.run_dir, step.round) / "rollout"
        own = len(chunk_paths(source, share=part))
        with self.reporter.progress(own, f"{_label(step)}: chunks") as progress:
            filter_rollout(
                config, source, self._folder(step), part=part, lease=lease, stop=self.stop, progress=progress
            )

    def _distill(self, step: Step, lines: Sequence[RoundLine], lease: EngineLease, ranks: Ranks) -> None:
        assert step.round is not None
        lease.release()
        config, folder = self._round_config(step.round, lines), round_dir(self.run_dir, step.round)
        drawn = sum(rollout_summary(part).questions for part in part_folders(folder / "rollout"))
        steps = -(-drawn // config.distill.questions_per_step) * config.distill.epochs
        with self.reporter.progress(steps, f"{_label(step)}: steps") as progress:
            training = distill(
                config, folder / "filter", folder / "distill", stop=self.stop, progress=progress, ranks=ranks
            )
        if ranks.is_first:
            for warning in warnings_of(training):
                self.reporter.warn(f"{_label(step)}: {warning}")

    def _evaluate(self, step: Step, lines: Sequence[RoundLine], lease: EngineLease, part: Part) -> None:
        """Every evaluation is paired with the base model's, its own with itself excepted."""
        config, baseline = self.config, None
        if step.round is not None:
            config = self._round_config(step.round, lines)
            tuned = trained_model(config, round_dir(self.run_dir, step.round) / "distill")
            config, baseline = config.model_copy(update={"model": tuned}), str(Step(None, "eval").folder(self.run_dir))
        config = config.model_copy(update={"eval": config.eval.model_copy(update={"baseline": baseline})})
        chunks = part.of(chunk_questions(self.held_out, config.rollout.questions_per_chunk))
        own = sum(map(len, chunks))
        with self.reporter.progress(own, f"{_label(step)}: questions") as progress:
            evaluate(
                config,
                self.held_out,
                self._folder(step),
                part=part,
                lease=lease,
                stop=self.stop,
                progress=progress,
            )

    def _finish(self, index: int | None, lines: Sequence[RoundLine], seconds: float | None = None) -> RoundLine:
        """Write and return the line of a round whose steps are all complete. seconds: None where jobs made it."""
        folder, training = round_dir(self.run_dir, index), None
        if index is not None:
            training = TrainingFigures.of(
                read_record(folder / "filter" / SUMMARY, FilterSummary),
                trained(folder / "distill"),
                price=length_price(self.config, lines),
                reference_kl=last_reference_kl(folder / "distill" / METRICS),
            )
        line = line_of(index, read_record(folder / "eval" / RESULTS, EvalResults), training, seconds)
        write_json(round_record(self.run_dir, index), line.as_json())
        return line

    def _parts(self, step: Step) -> list[Part]:
        """All parts of a step: as many as jobs of a cluster began it with, else one."""
        return begun_parts(self._folder(step)) or [WHOLE]

    def _folder(self, step: Step) -> Path:
        return self.run_dir / str(step)

    def _round_config(self, index: int, lines: Sequence[RoundLine]) -> RunConfig:
        """The configuration of one round: the weights of the round before, and the price of length."""
        config = self.config
        model = config.model
        updates: dict[str, Any] = {}
        if index > 0:
            model = trained_model(config, round_dir(self.run_dir, index - 1) / "distill")
            references = round_dir(self.run_dir, 0) / "filter" / REFERENCE_LENGTHS
            updates["reference_lengths"] = str(references)
        utility = config.filter.utility.model_copy(update={"length_price": length_price(config, lines)})
        distill_config = config.distill
        if distill_config.train == "full" and distill_config.reference is None:
            distill_config = distill_config.model_copy(update={"reference": config.model.path})
        return config.model_copy(
            update={
                "model": model,
                "filter": config.filter.model_copy(update={**updates, "utility": utility}),
                "distill": distill_config,
            }
        )

    def _prune(self, newest: int) -> None:
        """Drop the weights of rounds beyond keep_rounds, the best one's excepted; their data and figures stay."""
        keep = self.config.loop.keep_rounds
        if keep is None:
            return
        best = best_round(self.run_dir, self.config)
        for index in range(newest - keep + 1):
            if index != best:
                for name in WEIGHTS:
                    shutil.rmtree(round_dir(self.run_dir, index) / "distill" / name, ignore_errors=True)


def _label(step: Step) -> str:
    return f"{'base' if step.round is None else f'round {step.round}'} {step.phase}"


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """What the run folder records must hold from any working directory."""
    return resolve(inherited=[("this run", flat_config(config))]).config


def _require_teacher(config: RunConfig) -> None:
    if config.distill.reads_teacher and not config.filter.teacher_top_k:
        raise UsageError(
            "no teacher would be stored",
            why="distill.teacher is stored, and filter.teacher_top_k is 0",
            mend="set filter.teacher_top_k=64, or use distill.teacher=round",
        )


def _require_disjoint(questions: Sequence[Question], held_out: Sequence[Question]) -> None:
    texts = {" ".join(question.text.split()) for question in questions}
    shared = [question.id for question in held_out if " ".join(question.text.split()) in texts]
    if shared:
        raise UsageError(
            f"{len(shared)} held-out questions are also trained on, e.g. {shared[0]}",
            why="rounds are measured and chosen on questions that the model has not seen",
            mend="remove them from data.dataset or from loop.eval_dataset",
        )
