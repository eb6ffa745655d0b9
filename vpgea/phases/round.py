"""One round of a loop: what its steps are made with, and each of them done."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpgea.config.schema import RunConfig
from vpgea.engines.lease import EngineLease
from vpgea.errors import QualityGateError
from vpgea.filtering.reference_lengths import ReferenceLengths
from vpgea.filtering.report import warnings_of as filter_warnings
from vpgea.phases.distill import trained, trained_model, warnings_of
from vpgea.phases.distill_ranks import distill_on_devices
from vpgea.phases.evaluate import evaluate
from vpgea.phases.filter import filter_rollout
from vpgea.phases.rollout import RolloutPlan, rollout, rollout_summary
from vpgea.questions.load import Question, chunk_questions
from vpgea.runs.clock import Clock, seconds_of
from vpgea.runs.complete_phase import chunk_paths
from vpgea.runs.history import phases_of
from vpgea.runs.layout import (
    COMPLETE,
    LOGS,
    MANIFEST,
    METRICS,
    REFERENCE_LENGTHS,
    RESULTS,
    SUMMARY,
    Phase,
    Step,
    round_phases,
    round_record,
)
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import WHOLE, Part, begun_parts, part_folder, part_folders
from vpgea.runs.phase_folder import begun_inputs
from vpgea.runs.progress import Reporter
from vpgea.runs.records import EvalResults, FilterSummary, RoundLine
from vpgea.runs.round_lines import TrainingFigures, last_reference_kl, line_of
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import write_json
from vpgea.storage.records import read_record
from vpgea.training.ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round of a run, or before the first one the base model's evaluation.

    Args:
        run_dir: The run's folder.
        index: The round's number; None: the base model.
        config: With the weights that the round begins with and its price of length.
        questions: What it is trained on.
        held_out: What it is measured on.
        reporter: Told how far each step is.
        stop: Looked at between units of work.
    """

    run_dir: Path
    index: int | None
    config: RunConfig
    questions: list[Question]
    held_out: list[Question]
    reporter: Reporter
    stop: StopRequest

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What it is made of, as far as that is known by now."""
        return phases_of(self.run_dir, self.index, self.config.loop)

    def run(self, lease: EngineLease) -> RoundLine:
        """All steps, the round's line written last.

        The evaluation and the next round's rollout have the same weights, and so one engine; none is open while
        training has the machine.
        """
        began = time.perf_counter()
        for phase in round_phases(self.index):
            if phase in self.phases:  # its filter may say that it is the last one, which is measured
                for part in begun_parts(self.folder(phase)) or [WHOLE]:
                    self.run_part(phase, part, lease, Ranks())
        return self.finish(round(time.perf_counter() - began, 1))

    def run_part(self, phase: Phase, part: Part, lease: EngineLease, ranks: Ranks) -> bool:
        """Do one part of a step; whether the whole step is done now.

        Raises:
            QualityGateError: With the way out of a loop.
        """
        try:
            if phase == "rollout":
                self._rollout(part, lease)
            elif phase == "filter":
                self._filter(part, lease)
            elif phase == "distill":
                self._distill(lease, ranks)
            else:
                self._evaluate(part, lease)
        except QualityGateError as error:
            raise QualityGateError(
                f"{Step(self.index, phase)}: {error.what}",
                why=error.why,
                mend=f"{error.mend}. Settings that change results need another --output-dir; to make only this step "
                f"again, delete its folder {self.folder(phase)}",
            ) from error
        return (self.folder(phase) / COMPLETE).is_file()

    def finish(self, seconds: float | None = None) -> RoundLine:
        """Write and return the round's line; all of its steps are complete. seconds: None where jobs made it."""
        training = None
        if self.index is not None:
            training = TrainingFigures.of(
                read_record(self.folder("filter") / SUMMARY, FilterSummary),
                trained(self.folder("distill")),
                price=self.config.filter.utility.length_price,
                reference_kl=last_reference_kl(self.folder("distill") / METRICS),
            )
        results = read_record(self.folder("eval") / RESULTS, EvalResults) if "eval" in self.phases else None
        times = {str(phase): seconds_of(self.folder(phase)) for phase in self.phases}
        line = line_of(self.index, results, training, seconds=seconds, times=times)
        write_json(round_record(self.run_dir, self.index), line.as_json())
        return line

    def folder(self, phase: Phase) -> Path:
        """The phase's folder in the run folder."""
        return Step(self.index, phase).folder(self.run_dir)

    def _rollout(self, part: Part, lease: EngineLease) -> None:
        assert self.index is not None
        clock = Clock()
        plan = RolloutPlan.make(
            self.config, self.questions, part=part, round_index=self.index, begun=begun_inputs(self.run_dir)
        )
        with self.reporter.progress(plan.questions_in(plan.own_chunks), self._label("rollout: questions")) as progress:
            rollout(plan, self.folder("rollout"), lease=lease, stop=self.stop, progress=progress, clock=clock)

    def _filter(self, part: Part, lease: EngineLease) -> None:
        own = len(chunk_paths(self.folder("rollout"), share=part))
        with self.reporter.progress(own, self._label("filter: chunks")) as progress:
            summary = filter_rollout(
                self.config,
                self.folder("rollout"),
                self.folder("filter"),
                part=part,
                lease=lease,
                stop=self.stop,
                progress=progress,
            )
        for warning in filter_warnings(summary) if summary is not None else ():
            self.reporter.warn(f"{self._label('filter')}: {warning}")

    def _distill(self, lease: EngineLease, ranks: Ranks) -> None:
        assert self.index is not None
        lease.release()
        options = self.config.distill
        drawn = sum(rollout_summary(part).questions for part in part_folders(self.folder("rollout")))
        steps = -(-drawn // options.questions_per_step) * options.epochs
        with self.reporter.progress(steps, self._label("distill: steps")) as progress:
            training = distill_on_devices(
                self.config,
                self.folder("filter"),
                self.folder("distill"),
                self.run_dir / LOGS,
                stop=self.stop,
                progress=progress,
                ranks=ranks,
                continued=True,
                rounds_left=max(self.config.loop.rounds - self.index, 1),
                lease=lease,
            )
        if ranks.is_first:
            for warning in warnings_of(training):
                self.reporter.warn(f"{self._label('distill')}: {warning}")

    def _evaluate(self, part: Part, lease: EngineLease) -> None:
        """Every evaluation is paired with the base model's, its own with itself excepted."""
        model, baseline = self.config.model, None
        if self.index is not None:
            model = trained_model(self.config, self.folder("distill"))
            baseline = str(Step(None, "eval").folder(self.run_dir))
        measured = self.config.eval.model_copy(update={"baseline": baseline})
        config = self.config.model_copy(update={"model": model, "eval": measured})
        chunks = part.of(chunk_questions(self.held_out, config.rollout.questions_per_chunk))
        with self.reporter.progress(sum(map(len, chunks)), self._label("eval: questions")) as progress:
            evaluate(
                config,
                self.held_out,
                self.folder("eval"),
                part=part,
                lease=lease,
                stop=self.stop,
                progress=progress,
                continued=begun_inputs(self.run_dir),
            )

    def _label(self, what: str) -> str:
        return f"{'base' if self.index is None else f'round {self.index}'} {what}"


def round_config(config: RunConfig, run_dir: Path, index: int | None, price: float) -> RunConfig:
    """The loop's configuration as a round has it: the weights of the round before, its cap and the price of length."""
    if index is None:
        return config
    model, selection = config.model, dict[str, Any]()
    if index > 0:
        model = trained_model(config, Step(index - 1, "distill").folder(run_dir))
        selection["reference_lengths"] = str(_reference_lengths(run_dir, index))
    selection["utility"] = config.filter.utility.model_copy(update={"length_price": price})
    training = config.distill
    if training.train == "full" and training.reference is None:
        training = training.model_copy(update={"reference": config.model.path})
    sampling = config.rollout
    if config.loop.cap_decay != 1:
        cap = max(1, round(sampling.max_new_tokens * config.loop.cap_decay**index))
        sampling = sampling.model_copy(update={"max_new_tokens": cap})
    update = {
        "model": model,
        "rollout": sampling,
        "filter": config.filter.model_copy(update=selection),
        "distill": training,
    }
    return config.model_copy(update=update)


def begun_price(run_dir: Path, index: int) -> float | None:
    """The price of length with which a round's filter was begun, by this version or another; None before it is."""
    folder = Step(index, "filter").folder(run_dir)
    manifests = (part_folder(folder, part) / MANIFEST for part in begun_parts(folder))
    begun = next((path for path in manifests if path.is_file()), None)
    if begun is None:
        return None
    price = Manifest.read(begun).identity["filter.utility.length_price"]
    assert isinstance(price, int | float)
    return float(price)


def _reference_lengths(run_dir: Path, index: int) -> Path:
    """The file with every question's first length. A round of version 0.1.0 wrote its own ones, which are not it."""
    *_, first = files = [
        Step(before, "filter").folder(run_dir) / REFERENCE_LENGTHS for before in reversed(range(index))
    ]
    begun = ReferenceLengths.read(first)
    return next(file for file in files if file == first or ReferenceLengths.read(file).continues(begun))
