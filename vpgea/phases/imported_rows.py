"""Rows of an imported evaluation: where a thinking ends, how many tokens there are, and whose verdict counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vpgea.foreign.numbering import Numbered
from vpgea.foreign.sample import THINKING_ENDS, THINKING_OPENS, ForeignLog
from vpgea.foreign.verdicts import recorded_verdict
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.pool import GraderPool
from vpgea.modeling.tokenizer import encode
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import without_surrogates
from vpgea.storage.schemas import PRIOR, ForeignProvenance, ImportedRow, SampleKey

RECORDED, OURS = "recorded", "vpgea"
NO_VERDICT = Status.ERROR.value


@dataclass(frozen=True)
class Cut:
    """Where a response's thinking ends: characters up to and with its end; None where no tag tells. is_off: it does not
    end, so that all of it is thinking."""

    length: int | None
    is_off: bool


def cut(completion: str, *, is_opened_by_prompt: bool) -> Cut:
    """As tags tell it: the first end of thinking.

    is_opened_by_prompt: other responses of the log end a thinking that they did not begin; one without any tag has then
    not come to the end of its own.
    """
    place = completion.find(THINKING_ENDS)
    if place >= 0:
        return Cut(place + len(THINKING_ENDS), is_off=False)
    is_off = THINKING_OPENS in completion or is_opened_by_prompt
    return Cut(len(completion) if is_off else None, is_off=is_off)


@dataclass(frozen=True, kw_only=True)
class RowMaker:
    """What rows are made with.

    Attributes:
        tokenizer: Counts the tokens of all responses; None: the recorded counts stand.
        graders: Grade where there is a reference; None: the recorded verdicts stand.
        is_opened_by_prompt: See `cut`.
    """

    log: ForeignLog
    metric: str | None
    tokenizer: Any | None
    graders: GraderPool | None
    is_opened_by_prompt: bool
    stop: StopRequest

    def rows(self, samples: Sequence[Numbered]) -> list[ImportedRow]:
        """The rows of some samples.

        Raises:
            Stopped: A stop was requested; nothing is graded then.
        """
        cuts = [cut(one.sample.completion, is_opened_by_prompt=self.is_opened_by_prompt) for one in samples]
        counted = self._ids([one.sample.completion for one in samples], cuts)
        rows = [self._row(*each) for each in zip(samples, cuts, counted, strict=True)]
        return rows if self.graders is None else self._graded(self.graders, rows, cuts)

    def _ids(self, texts: list[str], cuts: list[Cut]) -> list[tuple[list[int], int | None] | None]:
        """Ids of each response, and how many of them are thinking; None without a tokenizer."""
        if self.tokenizer is None:
            return [None] * len(texts)
        texts = [without_surrogates(text) for text in texts]
        if not self.tokenizer.is_fast:
            return [
                (encode(self.tokenizer, text), self._encoded(text, one)) for text, one in zip(texts, cuts, strict=True)
            ]
        found = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(found["input_ids"], found["offset_mapping"], cuts, strict=True)
        return [
            (ids, None if one.length is None else sum(start < one.length for start, _ in offsets))
            for ids, offsets, one in pairs
        ]

    def _encoded(self, text: str, one: Cut) -> int | None:
        return None if one.length is None else len(encode(self.tokenizer, text[: one.length]))

    def _row(self, numbered: Numbered, one: Cut, counted: tuple[list[int], int | None] | None) -> ImportedRow:
        sample, recorded = numbered.sample, recorded_verdict(numbered.sample, self.metric)
        told = None if sample.contradicts_itself else sample.thinking_tokens
        ids, thinking = counted or (None, sample.tokens if one.is_off else told)
        return ImportedRow(
            key=SampleKey(0, numbered.question_id, PRIOR, numbered.index),
            seed=None,
            question=sample.question or "",
            answer=sample.reference or "",
            options=sample.options,
            prompt_ids=None,
            completion_ids=None if ids is None else np.array(ids, np.int32),
            logprobs=None,
            thinking_tokens=thinking,
            cut_off=one.is_off,
            finish_reason=sample.finish_reason,
            completion=sample.completion,
            origin=self._origin(),
            status=recorded.status or NO_VERDICT,
            extracted=sample.extracted,
            detail=recorded.why,
            first_correct_tokens=None,
            graded_by=RECORDED,
            recorded_status=recorded.status,
            recorded_score=recorded.score,
            recorded_tokens=sample.tokens,
            place=numbered.place,
        )

    def _origin(self) -> ForeignProvenance:
        sampling = self.log.sampling
        return ForeignProvenance(
            model_fingerprint=self.log.model,
            template_fingerprint=None,
            engine=" ".join(filter(None, (self.log.tool, self.log.version))),
            logprobs_of=None,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_new_tokens=sampling.cap,
        )

    def _graded(self, graders: GraderPool, rows: list[ImportedRow], cuts: list[Cut]) -> list[ImportedRow]:
        """The rows with our verdict where there is a reference; a response that is all thinking has no answer."""
        asked = [place for place, row in enumerate(rows) if row.answer and not row.cut_off]
        requests = [
            GradeRequest(rows[place].completion[cuts[place].length or 0 :], rows[place].answer, rows[place].question)
            for place in asked
        ]
        grades = dict(zip(asked, graders.grade(requests, lambda _: self.stop.check()), strict=True))
        return [
            _with_grade(row, grades.get(place, Grade(Status.WRONG))) if row.answer else row
            for place, row in enumerate(rows)
        ]


def _with_grade(row: ImportedRow, grade: Grade) -> ImportedRow:
    status, extracted, detail = grade.status.value, grade.extracted, grade.detail
    return replace(row, status=status, extracted=extracted, detail=detail, graded_by=OURS)
