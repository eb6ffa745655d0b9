"""What the phases exchange: a class of rows for every kind of shard, and its Arrow schema, which is the contract.

One row per sample. Ids are 32-bit, log-probabilities float32 natural logarithms, lists large lists; text is for
reading only, ids are what moves between phases. `vpgea.storage.rows` makes tables of rows and rows of tables.
MEASUREMENTS, of the filter's first half, stands in vpgea/filtering/measurements.py, since its columns are the checks'.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from vpgea.storage.rows import (
    Bool,
    FinishReason,
    Float32,
    Ids,
    Int32,
    Logprobs,
    Text,
    Texts,
    UInt64,
    View,
    Words,
    schema_of,
)

PRIOR: View = "prior"
POSTERIOR: View = "posterior"

IDS = pa.large_list(pa.int32())
LOGPROBS = pa.large_list(pa.float32())
TEXT = pa.large_string()


@dataclass(frozen=True, slots=True, order=True)
class SampleKey:
    """Which sample: the identity that every table has, and that its seeds are made from."""

    round: Int32
    question_id: Text
    view: View
    sample_index: Int32

    def seed(self, run_seed: int, use: str = "rollout") -> int:
        """The sample's 64-bit seed, from its identity alone. `use` separates the checks from the rollout."""
        identity = f"{self.round}\x1f{self.question_id}\x1f{self.view}\x1f{self.sample_index}"
        key = f"{run_seed}\x1f{identity}\x1f{use}"
        return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a sample is from: weights, prompts, engine and sampling.

    `logprobs_of` is `temperature` when the log-probabilities are those after it alone, `sampler` when after top-k and
    top-p too.
    """

    model_fingerprint: Text
    template_fingerprint: Text
    engine: Text
    logprobs_of: Text
    temperature: Float32
    top_p: Float32
    top_k: Int32
    max_new_tokens: Int32

    @property
    def truncated(self) -> bool:
        """True when the stored log-probabilities are those of a tempered or truncated sampler."""
        return self.temperature != 1 or self.top_p != 1 or self.top_k != 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleRow:
    """A rollout's sample of T completion tokens.

    Attributes:
        options: Of multiple choice; else empty.
        prompt_ids: As the view that sampled it saw the question.
        completion_ids: int32 (T,).
        logprobs: float32 (T,), nats, under the view that sampled it.
        thinking_tokens: |z|, the leading completion ids up to and including the first end of thinking.
        cut_off: There is no end of thinking: all T tokens are z, y is empty, r = 0.
    """

    key: SampleKey
    seed: UInt64
    question: Text
    answer: Text
    options: Texts
    prompt_ids: Ids
    completion_ids: Ids
    logprobs: Logprobs
    thinking_tokens: Int32
    cut_off: Bool
    finish_reason: FinishReason
    completion: Text
    origin: Provenance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradedRow:
    """An evaluation's sample: the columns of SampleRow, and its grade.

    Attributes:
        status: Of its grade.
        detail: Why, for error and timeout.
        first_correct_tokens: Tokens up to and with the first place of the reference's value; None where it does not
            stand, or is not looked for.
    """

    sample: SampleRow
    status: Text
    extracted: Text | None
    detail: Text | None
    first_correct_tokens: Int32 | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignProvenance:
    """The columns of Provenance, as far as a log of another tool states them. model_fingerprint: its word for it."""

    model_fingerprint: Text | None
    template_fingerprint: Text | None
    engine: Text
    logprobs_of: Text | None
    temperature: Float32 | None
    top_p: Float32 | None
    top_k: Int32 | None
    max_new_tokens: Int32 | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImportedRow:
    """A sample of another tool's evaluation: the columns of GradedRow, null where its log says nothing.

    Attributes:
        question: As the log has it; empty where it has none, as answer is.
        completion_ids: Of the tokenizer that was given; null without one.
        thinking_tokens: Of these ids, else as recorded.
        cut_off: The thinking was begun and not ended.
        status: The recorded verdict, or that of our grader; error where there is none.
        graded_by: `recorded` or `vpgea`.
        recorded_status: The verdict that the tool's own score gives, whichever status is.
        recorded_score: What was recorded under the metric, as JSON.
        recorded_tokens: Of the completion, as the tool counted them.
        place: Where the sample stands in the log.
    """

    key: SampleKey
    seed: UInt64 | None
    question: Text
    answer: Text
    options: Texts
    prompt_ids: Ids | None
    completion_ids: Ids | None
    logprobs: Logprobs | None
    thinking_tokens: Int32 | None
    cut_off: Bool
    finish_reason: FinishReason | None
    completion: Text
    origin: ForeignProvenance
    status: Text
    extracted: Text | None
    detail: Text | None
    first_correct_tokens: Int32 | None
    graded_by: Text
    recorded_status: Text | None
    recorded_score: Text | None
    recorded_tokens: Int32 | None
    place: Text


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherRow:
    """A filter's, optional: the posterior view along its own path, so that the dense losses need no other teacher.

    Attributes:
        top_ids: |z| times top_k, position by position, likeliest first.
        top_logprobs: Of these, in nats.
    """

    key: SampleKey
    top_k: Int32
    top_ids: Ids
    top_logprobs: Logprobs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SelectionRow:
    """A sample of the selected or the rejected set, ready to learn from without the rollout at hand.

    completion_ids, logprobs, thinking_tokens and cut_off are those of SampleRow.

    Attributes:
        prompt_ids: Of the *prior* view, whichever sampled it.
        posterior_prompt_ids: Of posterior samples, for the dense losses' teacher; with `rollout.noted_prior` of all.
        crossview_answer_ids: One correct continuation of z in the prior view, with its end.
        reasons: Why rejected; empty when accepted.
        advantage: Of prior samples.
        gate: Of posterior samples.
        learnt_tokens: Of a posterior path that is learnt in part: the first so many tokens of z have its gate, the
            others are masked. None: all of z has it.
    """

    key: SampleKey
    prompt_ids: Ids
    posterior_prompt_ids: Ids | None
    completion_ids: Ids
    logprobs: Logprobs
    thinking_tokens: Int32
    cut_off: Bool
    crossview_answer_ids: Ids | None
    status: Text
    reasons: Words
    utility: Float32 | None
    advantage: Float32 | None
    gate: Float32 | None
    completion: Text
    origin: Provenance
    learnt_tokens: Int32 | None = None


SAMPLES = schema_of(SampleRow)
GRADED = schema_of(GradedRow)
IMPORTED = schema_of(ImportedRow)
TEACHER = schema_of(TeacherRow)
SELECTION = schema_of(SelectionRow)
IDENTITY = tuple(schema_of(SampleKey).names)
