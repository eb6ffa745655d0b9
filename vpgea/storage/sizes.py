"""Bytes that rows of the Arrow schemas take on disk, from their tokens alone: for estimates and for the check of space.

Upper bounds where a text's length is assumed; `benchmarks/shard_bytes.py` compares them with real shards.
"""

from __future__ import annotations

ID_BYTES = 4  # int32
LOGPROB_BYTES = 4  # float32
TEXT_BYTES = 6  # of one token's text: assumed, four to five are usual
TOKEN_BYTES = ID_BYTES + LOGPROB_BYTES + TEXT_BYTES  # of a completion

ROW_BYTES = 400  # identity, provenance, figures and the offsets of lists: 150 to 390 seen
JOURNAL_ROW_BYTES = 1040  # of a completion that is appended alone: 1,032 seen, and 130 where 16 come together
SHARD_BYTES = 8192  # a file's schema and footer, and its sidecar: 4.7 to 7 kB seen


def samples_bytes(rows: int, prompt_tokens: int, completion_tokens: int) -> int:
    """Bytes of rows of SAMPLES. A row stores the question's text as well, which is a part of its prompt's.

    Args:
        rows: Number of samples.
        prompt_tokens: Of every row's own prompt, summed over rows, since each stores it.
        completion_tokens: Summed over rows.
    """
    return rows * ROW_BYTES + prompt_tokens * (ID_BYTES + TEXT_BYTES) + completion_tokens * TOKEN_BYTES


def journal_bytes(rows: int, completion_tokens: int) -> int:
    """Journals of finished completions, which are there until their chunk is whole."""
    return rows * JOURNAL_ROW_BYTES + completion_tokens * (ID_BYTES + LOGPROB_BYTES)


def measurements_bytes(rows: int, thinking_tokens: int, answer_tokens: int) -> int:
    """Rows of MEASUREMENTS. thinking_tokens: scored under the other view; answer_tokens: of stored continuations."""
    return rows * ROW_BYTES + thinking_tokens * LOGPROB_BYTES + answer_tokens * ID_BYTES


def selection_bytes(rows: int, prompt_tokens: int, completion_tokens: int, answer_tokens: int) -> int:
    """Rows of SELECTION. prompt_tokens: the prior prompt of every row, and the posterior's where it is written."""
    return rows * ROW_BYTES + (prompt_tokens + answer_tokens) * ID_BYTES + completion_tokens * TOKEN_BYTES


def teacher_bytes(rows: int, thinking_tokens: int, top_k: int) -> int:
    """Rows of TEACHER: an id and a log-probability for each of the likeliest tokens of a position."""
    return rows * ROW_BYTES + thinking_tokens * top_k * (ID_BYTES + LOGPROB_BYTES)
