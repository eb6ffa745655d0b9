"""The runs of an experiment: loops that go on where they stopped, and their last weights on the test questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vpgea.config.schema import ModelConfig, RunConfig, ViewsConfig
from vpgea.errors import QualityGateError, UsageError
from vpgea.experiment.grid import Experiment, Run, TestQuestions
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.distill import trained_model
from vpgea.phases.evaluate import EvalPlan, evaluate
from vpgea.phases.loop import Loop
from vpgea.questions.load import Question, load_questions, shared_questions
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.history import finished_lines
from vpgea.runs.layout import Step
from vpgea.runs.manifest import Manifest
from vpgea.runs.progress import Reporter
from vpgea.runs.records import RoundLine
from vpgea.runs.stopping import StopRequest
from vpgea.training.requirements import require_trainable

RUNS, TESTS = "runs", "tests"  # folders of an experiment


@dataclass(frozen=True, kw_only=True)
class EvaluationCost:
    """What one test of one setting samples: the last weights of each objective and seed, and the base under each seed.

    Attributes:
        setting: As `test`, "" for the one without a name.
        questions: Those that can be asked.
        samples: Of a question, in each evaluation.
        max_new_tokens: Of a sample.
    """

    setting: str
    test: str
    questions: int
    samples: int
    evaluations: int
    max_new_tokens: int

    @property
    def tokens_at_most(self) -> int:
        return self.questions * self.samples * self.evaluations * self.max_new_tokens


class Workshop:
    """An experiment's folder, in which its runs are made."""

    def __init__(
        self, experiment: Experiment, folder: Path, *, offline: bool, reporter: Reporter, stop: StopRequest
    ) -> None:
        """Nothing is touched yet."""
        self.experiment, self.folder = experiment, folder
        self._offline, self._reporter, self._stop = offline, reporter, stop

    def folder_of(self, run: Run) -> Path:
        """The loop's own, for every command that looks at loops."""
        return self.folder / RUNS / run.name

    def lines_of(self, run: Run) -> list[RoundLine]:
        """Of the base model and of every finished round."""
        return finished_lines(self.folder_of(run))

    def require_ready(self) -> list[EvaluationCost]:
        """See that every run can be trained and tested, before anything is sampled; prices and seeds change nothing.

        Returns:
            What the tests will sample.

        Raises:
            UsageError: One of them cannot, test questions are among those that it is trained or measured on, or two
                objectives of a setting would be tested otherwise.
        """
        plans: dict[tuple[str, str], EvalPlan] = {}
        for run in {(run.setting, run.objective): run for run in self.experiment.runs}.values():
            loop = Loop.read(
                run.config, self.folder_of(run), offline=self._offline, reporter=self._reporter, stop=self._stop
            )
            require_trainable(loop.config, LocalModel.resolve(loop.config.model))
            loop.require_first_round(self.folder_of(run))
            for name in self.experiment.tests:
                plan = self._plan_test(run, loop, name)
                first = plans.setdefault((run.setting, name), plan)
                _require_one_base(run, plan.manifest, first.manifest)
        return [self._cost(*key, plan) for key, plan in plans.items()]

    def _plan_test(self, run: Run, loop: Loop, name: str) -> EvalPlan:
        test = self.experiment.tests[name]
        config = _on_test(run.config, test)
        questions = self._test_questions(config)
        of, key = (f" of {name}", f"tests.{name}") if name else ("", "test")
        if seen := shared_questions(questions, [*loop.questions, *loop.held_out]):
            raise UsageError(
                f"{len(seen)} test questions{of} are also among those of {run.name}, e.g. {seen[0]}",
                why="what is compared in the end must be new to every run, and to the choice between them",
                mend=f"remove them from {key}.dataset, data.dataset or loop.eval_dataset",
            )
        return EvalPlan.make(config, questions)

    def _cost(self, setting: str, name: str, plan: EvalPlan) -> EvaluationCost:
        runs = [run for run in self.experiment.runs if run.setting == setting]
        tested = {(run.objective, run.seed) for run in runs}  # each at one of its prices
        return EvaluationCost(
            setting=setting,
            test=name,
            questions=sum(map(len, plan.sampling.chunks)),
            samples=self.experiment.tests[name].samples,
            evaluations=len(tested) + len({run.seed for run in runs}),
            max_new_tokens=plan.sampling.config.rollout.max_new_tokens,
        )

    def train(self, runs: Sequence[Run], on_run: Callable[[Run, list[RoundLine]], None]) -> dict[str, str]:
        """Make what is missing of these runs, one after another.

        on_run: Called with each run and its lines.

        Returns:
            Run's name → why it could go no further, of those that ended at a quality gate. What it has counts.

        Raises:
            VpgeaError: What a loop raises, that excepted.
        """
        ended = {}
        for number, run in enumerate(runs, 1):
            self._reporter.info(f"run {number} of {len(runs)}: {run.name}")
            try:
                lines = self._loop(run).run()
            except QualityGateError as error:
                lines, ended[run.name] = self.lines_of(run), f"{error.what}: {error.why}"
                self._reporter.warn(f"{run.name} ends after {max(len(lines) - 1, 0)} rounds: {error.what}")
            on_run(run, lines)
        return ended

    def test(self, run: Run, rounds: int, name: str) -> tuple[CompletePhase, CompletePhase]:
        """`test_model` of the weights after so many rounds; after none they are the base's."""
        if not rounds:
            return self.test_model(run, None, run.name, name)
        last = rounds - 1
        model = trained_model(run.config, Step(last, "distill").folder(self.folder_of(run)))
        return self.test_model(run, model, f"{run.name}_round-{last:03d}", name)

    def test_model(
        self, run: Run, model: ModelConfig | None, called: str, name: str
    ) -> tuple[CompletePhase, CompletePhase]:
        """A model and the base model on some test questions, under a run's seed: (the model's samples, the base's).

        Args:
            run: Whose base it is.
            model: None: the base itself.
            called: The folder of the model's samples.
            name: Of the test.

        Raises:
            UsageError: A folder holds samples of other questions, or drawn otherwise.
        """
        config = _on_test(run.config, self.experiment.tests[name])
        questions = self._test_questions(config)
        folder = self.folder / TESTS / name
        setting = f"{run.setting}_" if run.setting else ""
        base = self._measured(config, questions, folder / f"{setting}base_seed-{run.seed}")
        if model is None:
            return base, base
        measured = config.eval.model_copy(update={"baseline": str(base.root)})
        tuned = config.model_copy(update={"model": model, "eval": measured})
        return self._measured(tuned, questions, folder / called), base

    def _loop(self, run: Run) -> Loop:
        return Loop.open(
            run.config, self.folder_of(run), offline=self._offline, reporter=self._reporter, stop=self._stop
        )

    def _test_questions(self, config: RunConfig) -> list[Question]:
        return load_questions(config.data, grader=config.grading.grader, offline=self._offline).questions

    def _measured(self, config: RunConfig, questions: Sequence[Question], folder: Path) -> CompletePhase:
        """Also where it is finished: it must be what is asked for now."""
        with self._reporter.progress(len(questions), f"test: {folder.relative_to(self.folder / TESTS)}") as progress:
            evaluate(config, questions, folder, stop=self._stop, progress=progress)
        return CompletePhase.open(folder, "eval")


def _on_test(config: RunConfig, test: TestQuestions) -> RunConfig:
    """What a run is tested by. No note is read there: that of an objective must make no other base."""
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"dataset": test.dataset, "limit": test.limit}),
            "eval": config.eval.model_copy(update={"samples": test.samples, "baseline": None}),
            "views": config.views.model_copy(update={"note": ViewsConfig().note}),
        }
    )


def _require_one_base(run: Run, plan: Manifest, first: Manifest) -> None:
    """plan, first: of the base model's test for this run, and for the first one of its setting."""
    now, before = ({**one.identity, **one.inputs} for one in (plan, first))
    if other := sorted(key for key in now.keys() | before.keys() if now.get(key) != before.get(key)):
        raise UsageError(
            f"{run.name} would be tested with another {other[0]}: {now.get(other[0])!r}, not {before.get(other[0])!r}",
            why="all objectives of a setting are held against one base model that is asked alike",
            mend="have it among keys, or make settings of it",
        )
