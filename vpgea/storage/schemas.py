"""The Arrow schemas that the phases exchange: the contract between them.

MEASUREMENTS, of the filter's first half, stands in vpgea/filtering/measurements.py, since its columns are the checks'.

One row per sample. A sample's identity is (round, question_id, view, sample_index). Ids are 32-bit, log-probabilities
float32 natural logarithms, lists large lists; text is for reading only, ids are what moves between phases.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import pyarrow as pa

SCHEMA_VERSION = 1

View = Literal["prior", "posterior"]
PRIOR: View = "prior"
POSTERIOR: View = "posterior"

IDS = pa.large_list(pa.int32())
LOGPROBS = pa.large_list(pa.float32())
TEXT = pa.large_string()

IDENTITY_FIELDS = [
    pa.field("round", pa.int32(), nullable=False),
    pa.field("question_id", TEXT, nullable=False),
    pa.field("view", TEXT, nullable=False),
    pa.field("sample_index", pa.int32(), nullable=False),
]

IDENTITY = tuple(field.name for field in IDENTITY_FIELDS)

_PROVENANCE_FIELDS = [
    pa.field("model_fingerprint", TEXT, nullable=False),
    pa.field("template_fingerprint", TEXT, nullable=False),
    pa.field("engine", TEXT, nullable=False),
    pa.field("logprobs_of", TEXT, nullable=False),  # temperature: after it | sampler: after top-k and top-p, too
    pa.field("temperature", pa.float32(), nullable=False),
    pa.field("top_p", pa.float32(), nullable=False),
    pa.field("top_k", pa.int32(), nullable=False),
    pa.field("max_new_tokens", pa.int32(), nullable=False),
]


def versioned(*groups: list[pa.Field]) -> pa.Schema:
    """A schema of these fields, marked with the version of our schemas."""
    return pa.schema(
        [field for group in groups for field in group], metadata={b"vpgea.schema_version": str(SCHEMA_VERSION).encode()}
    )


# Rollout. thinking_tokens is |z|: the leading completion ids up to and including the first end of thinking (all of
# them when the path is cut off).
SAMPLES = versioned(
    IDENTITY_FIELDS,
    [
        pa.field("seed", pa.uint64(), nullable=False),
        pa.field("question", TEXT, nullable=False),
        pa.field("answer", TEXT, nullable=False),
        pa.field("options", pa.large_list(TEXT), nullable=False),  # of multiple choice; else empty
        pa.field("prompt_ids", IDS, nullable=False),
        pa.field("completion_ids", IDS, nullable=False),
        pa.field("logprobs", LOGPROBS, nullable=False),
        pa.field("thinking_tokens", pa.int32(), nullable=False),
        pa.field("cut_off", pa.bool_(), nullable=False),  # no end of thinking: y is empty, r = 0
        pa.field("finish_reason", TEXT, nullable=False),  # stop | length
        pa.field("completion", TEXT, nullable=False),
    ],
    _PROVENANCE_FIELDS,
)

# Filter, optional: the posterior view along its own paths, so that the dense losses need no teacher of their own. Both
# lists hold |z| times k values, position by position, likeliest first.
TEACHER = versioned(
    IDENTITY_FIELDS,
    [
        pa.field("top_k", pa.int32(), nullable=False),
        pa.field("top_ids", IDS, nullable=False),
        pa.field("top_logprobs", LOGPROBS, nullable=False),
    ],
)

# Filter, second half: the selected and the rejected set, ready to learn from without the rollout at hand.
SELECTION = versioned(
    IDENTITY_FIELDS,
    [
        pa.field("prompt_ids", IDS, nullable=False),  # the *prior* prompt, whichever view sampled the path
        pa.field("posterior_prompt_ids", IDS),  # for the dense forms' teacher
        pa.field("completion_ids", IDS, nullable=False),
        pa.field("logprobs", LOGPROBS, nullable=False),
        pa.field("thinking_tokens", pa.int32(), nullable=False),
        pa.field("cut_off", pa.bool_(), nullable=False),
        pa.field("crossview_answer_ids", IDS),
        pa.field("status", TEXT, nullable=False),
        pa.field("reasons", pa.list_(TEXT), nullable=False),  # why rejected; empty when accepted
        pa.field("utility", pa.float32()),
        pa.field("advantage", pa.float32()),  # prior samples
        pa.field("gate", pa.float32()),  # posterior samples
        pa.field("completion", TEXT, nullable=False),
    ],
    _PROVENANCE_FIELDS,
)


def sample_seed(
    run_seed: int, round_index: int, question_id: str, view: str, sample_index: int, *, use: str = "rollout"
) -> int:
    """The 64-bit seed of one sample, from its identity alone. `use` separates the checks from the rollout."""
    key = f"{run_seed}\x1f{round_index}\x1f{question_id}\x1f{view}\x1f{sample_index}\x1f{use}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
