"""Rounds of rollout, filter, distill and a quick evaluation, as a state machine that lives in the run folder.

What is done is read from the phases' own markers: a step that is complete is skipped, one that is not continues. One
process takes all steps (`run`), or each is a job of its own on a cluster (`step`).
"""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vpgea.config.contradictions import other_reference, require_consistent, require_followable_price
from vpgea.config.resolve import dump_yaml, flat_config, from_flat
from vpgea.config.schema import RunConfig, identity_of
from vpgea.engines.lease import EngineLease
from vpgea.errors import UsageError
from vpgea.inspection.verify import foreign_phases
from vpgea.inspection.verify_phase import Finding
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.filter import require_filterable
from vpgea.phases.rollout import RolloutPlan
from vpgea.phases.round import Round, begun_price, round_config
from vpgea.phases.schedule import (
    best_round,
    ended_early,
    held_out_data,
    length_price,
    round_questions,
)
from vpgea.prompts.views import load_views
from vpgea.questions.load import Question, fingerprint_questions, load_questions, shared_questions
from vpgea.runs.history import finished_lines, phases_of, required_rounds
from vpgea.runs.layout import (
    CHECKPOINTS,
    COMPLETE,
    CONFIG,
    LOGS,
    MANIFEST,
    METRICS,
    PHASES,
    PUBLISHED,
    SUMMARY,
    Phase,
    Step,
    is_phase_finished,
    last_file,
    round_dir,
    round_numbers,
    round_record,
)
from vpgea.runs.links import refuse_links_in
from vpgea.runs.manifest import Manifest, require_contents, require_same
from vpgea.runs.overwriting import writing
from vpgea.runs.parts import WHOLE, Part, begun_parts, part_folder
from vpgea.runs.phase_folder import PhaseFolder, begun, begun_inputs, complete_phase
from vpgea.runs.progress import NullReporter, Reporter
from vpgea.runs.records import DistillSummary, RoundLine
from vpgea.runs.repairs import end_repair, set_rest_aside
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import write_if_new
from vpgea.storage.records import read_record
from vpgea.training.carried import carried_by
from vpgea.training.ranks import Ranks
from vpgea.training.requirements import require_trainable

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
        """Read both question sets and open the run folder.

        Raises:
            UsageError: It holds another run, the questions cannot be used, or a later phase would refuse what is asked.
        """
        loop = cls.read(config, run_dir, offline=offline, reporter=reporter, stop=stop, anew=overwrite)
        if loop.finished < loop.config.loop.rounds:
            is_begun = not overwrite and begun(run_dir) is not None
            warn = loop.reporter.warn if is_begun else None
            require_trainable(loop.config, LocalModel.resolve(loop.config.model), warn=warn)
            loop.require_first_round(None if overwrite else run_dir)
        if said := other_reference(loop.config):
            loop.reporter.warn(said)
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
        anew: bool = False,
    ) -> Loop:
        """Read both question sets; touch no folder. anew: whatever the folder was begun with.

        Raises:
            UsageError: They cannot be used.
        """
        config = _with_absolute_paths(config)
        require_consistent(config)
        require_followable_price(config)
        _require_teacher(config)
        reporter = reporter or NullReporter()
        grader = config.grading.grader
        loaded = [load_questions(data, grader=grader, offline=offline) for data in (config.data, held_out_data(config))]
        for text in (text for one in loaded for text in one.said()):
            reporter.warn(text)
        questions, held_out = (one.questions for one in loaded)
        _require_disjoint(questions, held_out)
        model = LocalModel.resolve(config.model)
        manifest = Manifest(
            phase="loop",
            identity=identity_of(
                config, "model", "data", "views", "rollout", "grading", "filter", "distill", "eval", "loop"
            ),
            inputs={
                "model": model.fingerprint,
                "questions": fingerprint_questions(questions),
                "held-out questions": fingerprint_questions(held_out),
                "template": load_views(
                    model, config.views, config.grading.grader, begun=None if anew else begun_inputs(run_dir)
                ).fingerprint,
            },
            config=flat_config(config),
            contents=model.contents,
        )
        return cls(
            config=config,
            run_dir=run_dir,
            questions=questions,
            held_out=held_out,
            manifest=manifest,
            reporter=reporter,
            stop=stop or StopRequest(),
        )

    def require_first_round(self, before: Path | None) -> None:
        """What the first rollout and filter would refuse is refused before the base model is measured.

        Args:
            before: The run's folder, where it goes on as it was begun.

        Raises:
            UsageError: The settings cannot be sampled or filtered with.
        """
        if before is not None and begun_parts(Step(0, "rollout").folder(before)):
            return
        per_round, seed = self.config.loop.questions_per_round, self.config.rollout.seed
        first = round_questions(self.questions, 0, per_round, seed)
        plan = RolloutPlan.make(self.config, first, begun=begun_inputs(before))
        require_filterable(self.config, plan.model)

    def require_opened(self) -> None:
        """For single steps of a run that was opened before, perhaps by a process on another machine.

        Raises:
            UsageError: It was not, or was another.
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
        """Run all rounds that are missing. Raises what the phases raise; everything finished stays.

        Returns:
            One line per finished round, the base model's first.
        """
        self._finish_repairs()
        if foreign := foreign_phases(self.run_dir):
            raise _foreign(self.run_dir, foreign[0])
        lines = finished_lines(self.run_dir)
        for line in lines:
            on_round(line)
        if lines:
            self.keep_up(lines)
        with writing(part_folder(self.run_dir, WHOLE)), self._lease() as lease:
            for index in [None, *range(self.config.loop.rounds)][len(lines) :]:
                if reason := ended_early(self.config, lines):
                    self.reporter.warn(f"the loop ends after round {lines[-1].round}: {reason}")
                    break
                self._require_own_base()
                lines.append(self._round(index, lines).run(lease))
                on_round(lines[-1])
                self.keep_up(lines)
        return lines

    def step(self, step: Step, *, part: Part = WHOLE, ranks: Ranks | None = None) -> bool:
        """Run one part of one step, as a job of a cluster takes it.

        What comes before must be complete, and is completed here where the last of its parts could not: two parts that
        end together may each miss the other's marker on a slow shared file system. A step that is done, or comes after
        the loop has ended early, is nothing to do. Several ranks may train together: each calls this. Raises what the
        phases raise.

        Returns:
            True once the whole step is done.
        """
        ranks = ranks or Ranks()
        if step.phase not in self.phases(step.round):
            self.reporter.warn(f"{step} is not needed: loop.eval_every is {self.config.loop.eval_every}")
            return True
        if round_record(self.run_dir, step.round).is_file():
            return is_phase_finished(step.folder(self.run_dir), step.phase) or self.run_part(
                step, part=part, ranks=ranks
            )
        refuse_links_in(self.run_dir, round_dir(self.run_dir, step.round))
        ranks.on_first(lambda: self._complete_before(step))
        if reason := ended_early(self.config, self._lines_before(step.round)):
            self.reporter.warn(f"{step} is not needed: {reason}")
            return True
        return self.run_part(step, part=part, ranks=ranks)

    def phases(self, index: int | None) -> tuple[Phase, ...]:
        """What a round is made of."""
        return phases_of(self.run_dir, index, self.config.loop)

    def run_part(self, step: Step, *, part: Part = WHOLE, ranks: Ranks | None = None) -> bool:
        """Do a part of a step, also where its round is finished, without a look at what comes before it."""
        current = self._round(step.round, self._lines_before(step.round))
        with writing(part_folder(self.run_dir, WHOLE)), self._lease() as lease:
            is_done = current.run_part(step.phase, part, lease, ranks or Ranks())
        ranks = ranks or Ranks()
        if step.phase == current.phases[-1] and is_done:
            ranks.on_first(lambda: self._finish(current))
        return is_done

    def _finish(self, current: Round) -> None:
        """Write a round's line, where it has none yet, and what follows from it."""
        if not round_record(self.run_dir, current.index).is_file():
            current.finish()
            self.keep_up(finished_lines(self.run_dir))

    def _finish_repairs(self) -> None:
        """What a repair has set aside is made again; a step that is lost as a whole is not done again unasked.

        Raises:
            UsageError: A finished round has lost a step.
        """
        repair = set_rest_aside(self.run_dir)
        asked = set() if repair is None else {damage.phase for damage in repair.damages}
        for index in required_rounds(self.run_dir, by_metrics=False):
            for step in (Step(index, phase) for phase in self.phases(index)):
                folder = step.folder(self.run_dir)
                if is_phase_finished(folder, step.phase):
                    continue
                if not begun_parts(folder) and str(step) not in asked:
                    raise _lost(self.run_dir, step)
                self.reporter.warn(f"{step} is not complete, and its round was finished: what it lacks is made again")
                for part in begun_parts(folder) or [WHOLE]:
                    self.run_part(step, part=part)
        if repair is not None:
            end_repair(self.run_dir)

    def _require_own_base(self) -> None:
        """A round of full fine-tuning reads the base model as its reference alone, long after the run was begun.

        Raises:
            UsageError: Its files were changed since; single steps look when they find the run (`require_opened`).
        """
        if (before := begun(self.run_dir)) is not None:
            now = LocalModel.resolve(self.config.model).contents
            require_contents(f"{self.run_dir} was started with", before.contents, now)

    def _round(self, index: int | None, lines: Sequence[RoundLine]) -> Round:
        """A round as the lines of the base model and of the rounds before it decide it. index None: the base model."""
        config, questions = self.config, self.questions
        if index is not None:
            known = begun_price(self.run_dir, index)
            price = length_price(config, lines) if known is None else known
            config = round_config(config, self.run_dir, index, price)
            questions = round_questions(questions, index, config.loop.questions_per_round, config.rollout.seed)
            if begun(Step(index, "distill").folder(self.run_dir)) is None:  # before anything of the round is sampled
                carried_by(config, LocalModel.resolve(config.model))
        return Round(
            run_dir=self.run_dir,
            index=index,
            config=config,
            questions=questions,
            held_out=self.held_out,
            reporter=self.reporter,
            stop=self.stop,
        )

    def _lines_before(self, index: int | None) -> list[RoundLine]:
        return [] if index is None else finished_lines(self.run_dir, index + 1)

    def _lease(self) -> EngineLease:
        return EngineLease(self.run_dir / LOGS, self.stop, publishes=self.run_dir, replaceable=self._replaceable)

    def _replaceable(self) -> set[str]:
        """Fingerprints of the weights that a server behind a URL may have when this run comes to it: only its own."""
        base = {self.manifest.inputs["model"]}
        if self.config.distill.train == "lora":
            return base
        trainings = (Step(index, "distill").folder(self.run_dir) for index in round_numbers(self.run_dir))
        summaries = (folder / SUMMARY for folder in trainings if (folder / SUMMARY).is_file())
        return base | {read_record(path, DistillSummary).model_fingerprint for path in summaries}

    def _complete_before(self, step: Step) -> None:
        """What comes before a step is complete, or becomes so from complete parts, up to where the loop ended early."""
        if step.round is None:
            return
        for index in [None, *range(step.round)][len(finished_lines(self.run_dir)) :]:
            if ended_early(self.config, finished_lines(self.run_dir)):
                return
            self._complete(Step(index, self.phases(index)[-1]))
        if not ended_early(self.config, finished_lines(self.run_dir)):
            for phase in PHASES[: PHASES.index(step.phase)]:
                self._complete(Step(step.round, phase))

    def _complete(self, step: Step) -> None:
        """Derive what the last part of a step could not.

        Raises:
            UsageError: Some part is not complete.
        """
        folder = step.folder(self.run_dir)
        parts = begun_parts(folder) or [WHOLE]
        if any(not (part_folder(folder, part) / COMPLETE).is_file() for part in parts):
            raise UsageError(
                f"{step} is not complete",
                why="the step that was asked for comes after it",
                mend="run what is missing first; `vpgea slurm status RUN` lists it",
            )
        if not (folder / COMPLETE).is_file():  # else every part of an array would derive it from all parts again
            complete_phase(folder)
        last = last_file(self.run_dir, step, self.phases(step.round))
        # a training that was killed right after it was complete has left its checkpoints, which nobody needs
        if (last is not None and not last.is_file()) or (part_folder(folder, parts[0]) / CHECKPOINTS).is_dir():
            self.run_part(step, part=parts[0])

    def keep_up(self, lines: Sequence[RoundLine]) -> None:
        """What follows from the finished rounds: the run's metrics, and which weights are kept."""
        write_if_new(self.run_dir / METRICS, "".join(json.dumps(line.as_json()) + "\n" for line in lines).encode())
        self._prune(len(lines) - 2)

    def _prune(self, newest: int) -> None:
        """Drop the weights of rounds beyond keep_rounds, the best one's excepted; their data and figures stay."""
        keep = self.config.loop.keep_rounds
        if keep is None:
            return
        best = best_round(self.run_dir, self.config)
        for index in range(newest - keep + 1):
            if index != best:
                for name in PUBLISHED:
                    shutil.rmtree(round_dir(self.run_dir, index) / "distill" / name, ignore_errors=True)


def _foreign(run_dir: Path, finding: Finding) -> UsageError:
    return UsageError(
        f"{finding.path} of {run_dir} does not belong to what stands before it",
        why=finding.problem,
        mend=f"restore what was there, or make it again with `vpgea doctor {shlex.quote(str(run_dir))} --repair`",
    )


def _lost(run_dir: Path, step: Step) -> UsageError:
    return UsageError(
        f"{step} of {run_dir} is gone",
        why="its round was finished, and later ones build on what was there",
        mend=f"restore it, or make it again with `vpgea doctor {shlex.quote(str(run_dir))} --repair`",
    )


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """What the run folder records must hold from any working directory."""
    return from_flat(flat_config(config))


def _require_teacher(config: RunConfig) -> None:
    if config.distill.reads_teacher and not config.filter.teacher_top_k:
        raise UsageError(
            "no teacher would be stored",
            why="distill.teacher is stored, and filter.teacher_top_k is 0",
            mend="set filter.teacher_top_k=64, or use distill.teacher=round",
        )


def _require_disjoint(questions: Sequence[Question], held_out: Sequence[Question]) -> None:
    if shared := shared_questions(held_out, questions):
        raise UsageError(
            f"{len(shared)} held-out questions are also trained on, e.g. {shared[0]}",
            why="rounds are measured and chosen on questions that the model has not seen",
            mend="remove them from data.dataset or from loop.eval_dataset",
        )
