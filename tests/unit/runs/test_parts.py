"""Parts of a phase: how its questions are divided, and how a part is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpgea.errors import UsageError
from vpgea.questions.load import Question, chunk_questions
from vpgea.runs.parts import Part


@given(total=st.integers(0, 50), per_chunk=st.integers(1, 12), parts=st.integers(1, 7))
def test_chunks_and_shards_divide_without_loss_or_repeat(total: int, per_chunk: int, parts: int) -> None:
    questions = [Question(str(i), "?", "1") for i in range(total)]
    chunks = chunk_questions(questions, per_chunk)
    assert [question for chunk in chunks for question in chunk] == questions
    assert all(len(chunk) == per_chunk for chunk in chunks[:-1])
    numbered = list(enumerate(chunks))
    divided = [Part(part, parts).of(numbered) for part in range(parts)]
    assert all(index % parts == part for part, mine in enumerate(divided) for index, _ in mine)
    assert sorted(index for mine in divided for index, _ in mine) == list(range(len(chunks)))


def test_a_part_is_given_as_i_of_n() -> None:
    assert Part.parse("0/1") == Part(0, 1)
    assert Part.parse("3/4") == Part(3, 4)
    for text in ("4/4", "0/0", "-1/4", "1", "1/", "a/b", "", "1/2/3", "1.0/2", "٣/٤"):
        with pytest.raises(UsageError, match="is no shard"):
            Part.parse(text)
