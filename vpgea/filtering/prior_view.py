"""What checks ask of the model: continuations behind the plain prompt, and log-probabilities of paths."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from vpgea.config.schema import RunConfig
from vpgea.engines.base import Completion, Engine, GenerateRequest, Sampling, ScoreRequest
from vpgea.engines.kept import Batch, KeptChunk
from vpgea.filtering.samples import MeasuredSample
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.pool import GraderPool
from vpgea.grading.samples import grade_rows
from vpgea.prompts.views import Views
from vpgea.runs.clock import Clock
from vpgea.runs.progress import Progress
from vpgea.runs.stopping import StopRequest

_SLICE = 256  # scoring requests between two looks at the stop

T = TypeVar("T")


@dataclass(frozen=True)
class Start:
    """Where continuations begin: behind these ids.

    Attributes:
        sample: the seeds follow from its identity, and its tokens are counted.
        use: what they are for, in a word; keeps the seeds of different uses apart.
    """

    sample: MeasuredSample
    ids: list[int]
    use: str


@dataclass(frozen=True)
class Answers:
    """Continuations from one start, and their grades.

    One that came to its cap before the right answer may still have been on its way there: like one without a grade it
    is neither right nor wrong, and out of every share.
    """

    completions: Sequence[Completion]
    grades: Sequence[Grade]

    @property
    def right(self) -> list[Completion]:
        return [one for one, grade in self._pairs if grade.status == Status.CORRECT]

    @property
    def cut(self) -> int:
        """How many came to their cap without the right answer."""
        return sum(one.finish_reason == "length" and grade.status == Status.WRONG for one, grade in self._pairs)

    @property
    def decided(self) -> int:
        """How many are right or wrong."""
        return sum(grade.status.valid for grade in self.grades) - self.cut

    @property
    def share(self) -> float | None:
        """Of the decided ones that are right; None without any."""
        return len(self.right) / self.decided if self.decided else None

    @property
    def _pairs(self) -> list[tuple[Completion, Grade]]:
        return list(zip(self.completions, self.grades, strict=True))


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """A beginning with a continuation, as grades are made of it."""

    completion_ids: np.ndarray
    thinking_tokens: int
    cut_off: bool
    answer: str
    question: str


class PriorView:
    """The weights that sampled the paths, asked in slices so that a stop is heard. Counts the tokens it takes.

    Args:
        context: tokens of the longest sequence that the model was made for; None: not known.
        clock: of the phase.

    Attributes:
        kept: continuations of the chunk under measurement that are finished already; None: nothing is kept.
    """

    def __init__(
        self,
        config: RunConfig,
        views: Views,
        engine: Engine,
        graders: GraderPool,
        stop: StopRequest,
        progress: Progress,
        *,
        context: int | None,
        clock: Clock | None = None,
    ) -> None:
        self.config, self.views, self.engine, self.graders = config, views, engine, graders
        self.stop, self.progress, self.clock = stop, progress, clock or Clock()
        self.context = sys.maxsize if context is None else context
        self.kept: KeptChunk | None = None

    @property
    def is_truncated(self) -> bool:
        """Whether stored log-probabilities are not the model's own."""
        return sampling_truncated(self.config)

    def continuations(self, starts: Sequence[Start], count: int, caps: Sequence[int]) -> list[list[Completion]]:
        """`count` completions behind each start, up to its cap in tokens, sampled like the rollout.

        None behind a start from which they might pass the model's context.

        Raises:
            EngineError: the engine failed.
            Stopped: a stop was asked for.
        """
        rollout = self.config.rollout
        requests = [
            GenerateRequest(
                start.ids,
                start.sample.key.seed(rollout.seed, use=f"{start.use}/{index}"),
                cap,
                group=start.sample.question.id,
            )
            for start, cap in zip(starts, caps, strict=True)
            if len(start.ids) + cap <= self.context
            for index in range(count)
        ]
        sampling = Sampling(
            max_new_tokens=max(caps, default=1),
            stop_ids=self.views.stop_ids,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            top_k=rollout.top_k,
        )
        drawn = self._drawn(requests, sampling)
        positions = itertools.count()
        groups = []
        for start, cap in zip(starts, caps, strict=True):
            fits = len(start.ids) + cap <= self.context
            groups.append([drawn[next(positions)] for _ in range(count * fits)])
            start.sample.check_tokens += sum(len(completion.ids) for completion in groups[-1])
        return groups

    def _drawn(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> dict[int, Completion]:
        """The completion of every request, by its position."""
        batch = Batch(requests, sampling, self.kept, self.stop)
        drawn = {position: found.completion for position, found in batch.found.items()}
        for _, index, completion in self.engine.generate([batch.ask(self.engine)], sampling, self._on_tokens):
            if (position := batch.take(index, completion)) is not None:
                drawn[position] = completion
        return drawn

    def answers(self, starts: Sequence[Start]) -> list[Answers]:
        """Answers behind each start, as many and as long as the answerability check asks for."""
        options = self.config.filter.answerability
        completions = self.continuations(starts, options.samples, [options.max_new_tokens] * len(starts))
        requests = [
            GradeRequest(self.views.decode(completion.ids.tolist()), question.answer, question.text)
            for question, group in zip((start.sample.question for start in starts), completions, strict=True)
            for completion in group
        ]
        with self.clock.on("grading"):
            grades = iter(self.graders.grade(requests, lambda _: self._look_up()))
        return [Answers(group, list(itertools.islice(grades, len(group)))) for group in completions]

    def thought_on(
        self, starts: Sequence[Start], count: int, caps: Sequence[int]
    ) -> list[list[tuple[Completion, Grade]]]:
        """What follows the beginning of a thinking, to its end and answer, graded as whole samples of a rollout are.

        None behind a start from which they might pass the model's context.

        Raises:
            EngineError: the engine failed.
            Stopped: a stop was asked for.
        """
        groups = self.continuations(starts, count, caps)
        rows = []
        for start, group in zip(starts, groups, strict=True):
            question, begun = start.sample.question, start.ids[len(start.sample.prior_prompt) :]
            for completion in group:
                ids = np.array([*begun, *completion.ids.tolist()], np.int32)
                thinking = self.views.thinking_length(ids.tolist())
                rows.append(
                    _Whole(
                        completion_ids=ids,
                        thinking_tokens=len(ids) if thinking is None else thinking,
                        cut_off=thinking is None,
                        answer=question.answer,
                        question=question.text,
                    )
                )
        with self.clock.on("grading"):
            grades = iter(grade_rows(self.views, self.graders, rows, self.stop))
        return [[(completion, next(grades)) for completion in group] for group in groups]

    def score(self, samples: Sequence[MeasuredSample], requests: Sequence[ScoreRequest]) -> list[np.ndarray | None]:
        """Score token ids for samples; the cost is counted for the sample at its place.

        Returns:
            Untempered log-probabilities, float32 (len(ids) - start,) each; None for what passes the model's context.
        """
        results = iter(
            self.in_slices(self.engine.score, [request for request in requests if len(request.ids) <= self.context])
        )
        scored: list[np.ndarray | None] = []
        for sample, request in zip(samples, requests, strict=True):
            logprobs = next(results) if len(request.ids) <= self.context else None
            sample.score_tokens += 0 if logprobs is None else len(logprobs)
            scored.append(logprobs)
        return scored

    def in_slices(
        self, score: Callable[[Sequence[ScoreRequest]], list[T]], requests: Sequence[ScoreRequest]
    ) -> list[T]:
        """Score in slices, so that a stop is heard."""
        results: list[T] = []
        for start in range(0, len(requests), _SLICE):
            self._look_up()
            part = requests[start : start + _SLICE]
            results += score(part)
            self.stop.account.scored += sum(len(request.ids) - request.start for request in part)
        return results

    def _look_up(self) -> None:
        """Between two pieces of work: keep what is finished, and hear a stop."""
        if self.kept is not None:
            self.kept.tick()
        self.stop.check()

    def _on_tokens(self, count: int) -> None:
        self.stop.account.drawn += count
        self._look_up()
        self.progress.note(self.engine.usage.remark)
        self.progress.advance(0, tokens=count)


def sampling_truncated(config: RunConfig) -> bool:
    """True when stored log-probabilities are not the model's own: no ELBO, no importance weights."""
    rollout = config.rollout
    sampling = Sampling(
        max_new_tokens=1,
        stop_ids=(),
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
    )
    return sampling.truncated
