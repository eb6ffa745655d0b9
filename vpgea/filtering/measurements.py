"""What the filter's first half writes: the schema MEASUREMENTS, put together from the checks' columns."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from vpgea.filtering.checks.base import Check
from vpgea.filtering.checks.registry import CHECKS
from vpgea.storage.rows import schema_of, versioned
from vpgea.storage.schemas import LOGPROBS, TEXT, SampleKey

OWN_COLUMNS = (
    pa.field("status", TEXT, nullable=False),  # correct | wrong | error | timeout
    pa.field("extracted", TEXT),
    pa.field("detail", TEXT),  # why, for error and timeout
    pa.field("other_view_logprobs", LOGPROBS),  # z under the view that did not sample it
    pa.field("answer_position", pa.float32()),  # first place of the value, as a share of z
    pa.field("log_s_cue", pa.float32()),  # log-probability of the reference answer after the cue, prior view
    pa.field("check_tokens", pa.int64(), nullable=False),  # tokens sampled for the checks
    pa.field("score_tokens", pa.int64(), nullable=False),  # tokens scored for the checks
)

# The first version's columns keep their places on disk; those of later checks follow.
_FIRST = (
    *("status", "extracted", "detail", "other_view_logprobs"),
    *("answerability", "answerability_valid", "answerability_empty", "answer_tokens", "crossview_answer_ids"),
    *("derivation", "answer_position", "leak", "log_s_cue", "early_exits", "counterfactual_logprob"),
    *("check_tokens", "score_tokens"),
)


def measurement_schema(checks: Sequence[Check] = CHECKS) -> pa.Schema:
    """MEASUREMENTS: one row per sample. Null means not measured or not applicable."""
    columns = {column.name: column for column in OWN_COLUMNS}
    columns |= {column.name: column for check in checks for column in check.columns}
    names = [*(name for name in _FIRST if name in columns), *(name for name in columns if name not in _FIRST)]
    return versioned([*schema_of(SampleKey), *(columns[name] for name in names)])


def check_numbers(checks: Sequence[Check] = CHECKS) -> list[str]:
    """The checks' columns that hold one number per sample, of which a mean makes sense."""
    return [column.name for check in checks for column in check.columns if column.type == pa.float32()]


MEASUREMENTS = measurement_schema()
