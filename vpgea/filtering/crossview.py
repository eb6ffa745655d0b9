"""Looking at posterior paths from the prior's view, chunk by chunk: what each check measures, before any threshold.

Every measurement is taken with the same weights that sampled the path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from vpgea.engines.base import ScoreRequest
from vpgea.filtering.checks.base import Check
from vpgea.filtering.checks.registry import CHECKS
from vpgea.filtering.measurements import measurement_schema
from vpgea.filtering.prior_view import PriorView
from vpgea.filtering.samples import Chunk, MeasuredSample
from vpgea.grading.samples import grade_rows
from vpgea.grading.values import canonical_answers, find_value
from vpgea.questions.load import Question
from vpgea.storage.schemas import POSTERIOR, SampleRow, TeacherRow
from vpgea.storage.shards import table_from_rows


class CrossView:
    """Measures the samples of one chunk at a time."""

    def __init__(self, prior_view: PriorView, checks: Sequence[Check] = CHECKS) -> None:
        self.prior_view = prior_view
        self.config, self.views = prior_view.config, prior_view.views
        self.checks = [check for check in checks if check.is_enabled(self.config.filter)]
        self.schema = measurement_schema(checks)
        self.answer_ids: dict[str, list[list[int]]] = {}

    def measure(self, rows: Sequence[SampleRow], more_answers: Iterable[str] = ()) -> pa.Table:
        """Samples of whole questions to MEASUREMENTS, in the same order.

        Args:
            rows: one chunk.
            more_answers: of questions in other chunks, for notes with a wrong answer; read only where they are needed.

        Raises:
            EngineError: the engine failed. A grader that fails is a status, never an exception.
            Stopped: a stop was asked for.
        """
        chunk = Chunk(self._graded(rows), more_answers)
        self._locate(chunk.candidates)
        if not self.prior_view.is_truncated:
            self._other_view(chunk.posterior)
        for check in self.checks:
            check.measure(chunk, self.prior_view)
        return table_from_rows([self._row(sample) for sample in chunk.samples], self.schema)

    def teacher(self, rows: Sequence[SampleRow]) -> list[TeacherRow]:
        """The teacher along the posterior paths among samples, rejected ones too: `dense-cv` needs them.

        Raises:
            EngineError: The engine fails.
            Stopped: A stop was requested.
        """
        count = self.config.filter.teacher_top_k
        rows = [row for row in rows if row.key.view == POSTERIOR]
        requests = []
        for row in rows:
            z = row.completion_ids[: row.thinking_tokens].tolist()
            requests.append(ScoreRequest(row.prompt_ids.tolist() + z, len(row.prompt_ids)))
        view = self.prior_view
        found = view.in_slices(partial(view.engine.top_logprobs, k=count), requests)
        return [
            TeacherRow(key=row.key, top_k=count, top_ids=top.ids.ravel(), top_logprobs=top.logprobs.ravel())
            for row, top in zip(rows, found, strict=True)
        ]

    def _graded(self, rows: Sequence[SampleRow]) -> list[MeasuredSample]:
        with self.prior_view.clock.on("grading"):
            grades = grade_rows(self.views, self.prior_view.graders, rows, self.prior_view.stop)
        prompts: dict[str, list[int]] = {}
        samples = []
        for row, grade in zip(rows, grades, strict=True):
            question = Question.from_row(row)
            if question.id not in prompts:
                prompts[question.id] = self.views.prior_prompt(question)
            z = row.completion_ids[: row.thinking_tokens].tolist()
            samples.append(
                MeasuredSample(
                    row=row,
                    question=question,
                    prior_prompt=prompts[question.id],
                    z=z,
                    z_text=self.views.decode(z),
                    grade=grade,
                )
            )
        return samples

    def _locate(self, candidates: Sequence[MeasuredSample]) -> None:
        """Where the value of y* first stands in z."""
        for sample in candidates:
            question = sample.question
            sample.value_offset = find_value(
                sample.z_text, question.answer, question=question.text, options=question.options
            )
            if sample.value_offset is not None:
                sample.found["answer_position"] = sample.value_offset / len(sample.z_text)

    def _other_view(self, samples: Sequence[MeasuredSample]) -> None:
        """log pi(z) per token of every posterior path, and log s_cue: the reference answer's after the cue.

        A cut-off path has no end of thinking of its own; it is put there before the cue. With the first way to write
        the answer z is scored, too; of the others only they, so that an engine that knows z need not read it again.
        """
        requests: list[ScoreRequest] = []
        owners: list[MeasuredSample] = []
        starts: list[int | None] = []  # where the answer starts within what is scored; None: z is not scored with it
        for sample in samples:
            end = self.views.end_of_thinking_ids if sample.row.cut_off else []
            before = sample.z + end + self.views.answer_cue_ids
            prompt = sample.prior_prompt
            for place, answer in enumerate(self._answers(sample.question.answer)):
                ids = prompt + before + answer
                requests.append(ScoreRequest(ids, len(prompt) + (len(before) if place else 0)))
                owners.append(sample)
                starts.append(None if place else len(before))
        by_answer: dict[int, list[float]] = {}
        for sample, start, logprobs in zip(owners, starts, self.prior_view.score(owners, requests), strict=True):
            if logprobs is None:
                continue
            if start is not None:
                sample.prior_logprobs = sample.found["other_view_logprobs"] = logprobs[: len(sample.z)]
            by_answer.setdefault(id(sample), []).append(float(logprobs[start or 0 :].sum(dtype=np.float64)))
        for sample in samples:
            if id(sample) in by_answer:
                sample.found["log_s_cue"] = float(np.logaddexp.reduce(by_answer[id(sample)]))

    def _answers(self, reference: str) -> list[list[int]]:
        """Ids of each way to write the answer, the shortest first. Two of the same ids are one event."""
        if reference not in self.answer_ids:
            texts = canonical_answers(reference, self.config.grading.grader)
            distinct = dict.fromkeys(tuple(self.views.answer_ids(text)) for text in texts)
            self.answer_ids[reference] = sorted(map(list, distinct), key=len)
        return self.answer_ids[reference]

    def _row(self, sample: MeasuredSample) -> dict[str, Any]:
        unknown = sample.found.keys() - set(self.schema.names)
        assert not unknown, f"no check has the columns {unknown}"
        return {
            **dict.fromkeys(self.schema.names),
            **asdict(sample.key),
            "status": sample.grade.status.value,
            "extracted": sample.grade.extracted,
            "detail": sample.grade.detail,
            "check_tokens": sample.check_tokens,
            "score_tokens": sample.score_tokens,
            **sample.found,
        }
