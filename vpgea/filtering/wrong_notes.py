"""Notes with another answer than the question's own: what would the path's tokens be under them?"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from string import ascii_uppercase

from vpgea.filtering.samples import Chunk, MeasuredSample
from vpgea.grading.choice import normalise_choice
from vpgea.grading.references import final_answer
from vpgea.grading.values import answer_value
from vpgea.runs.layout import chunk_number
from vpgea.storage.shards import read_table

_CHUNKS_FOR_ANSWERS = 8  # in which answers are looked for that a chunk has too few of


class WrongNotes:
    """Wrong answers for the paths of one chunk.

    For a question with options they are the letters of its other options. For any other question they are the other
    questions' answers: first those of its chunk; where these have too few values, also those of the chunks behind it.

    Args:
        count: how many are wanted. A path gets fewer where there are no more, and none where every answer is its own.
    """

    def __init__(self, chunk: Chunk, count: int, grader: str) -> None:
        self.count, self.grader = count, grader
        self.pool: dict[object, str] = {}  # value → the first way in which it is written, without a solution around it
        for sample in chunk.samples:
            if not sample.question.options:
                self._add(sample.question.answer)
        if any(not sample.question.options for sample in chunk.candidates):
            more = iter(chunk.more_answers)
            while len(self.pool) <= count and (answer := next(more, None)) is not None:
                self._add(answer)

    def of(self, sample: MeasuredSample) -> list[str]:
        """The path's wrong answers, distinct by value; drawn by the path's identity from all that would do."""
        question = sample.question
        if question.options:
            letters = ascii_uppercase[: len(question.options)]
            others = [letter for letter in letters if letter != normalise_choice(question.answer)]
        else:
            own = answer_value(question.answer, self.grader)
            others = [answer for value, answer in self.pool.items() if value != own]
        return sorted(others, key=lambda answer: _draw(sample, answer))[: self.count]

    def _add(self, answer: str) -> None:
        self.pool.setdefault(answer_value(answer, self.grader), final_answer(answer, self.grader))


def answers_behind(chunks: Callable[[], Sequence[Path]], index: int) -> Iterator[str]:
    """Reference answers of the chunks that follow a chunk, of the first again behind the last.

    Args:
        chunks: Gives all of the rollout, in the order of their numbers; asked only where an answer is wanted.
        index: Number of the chunk.
    """
    paths = chunks()
    start = bisect_right(paths, index, key=chunk_number)
    ahead = paths[start : start + _CHUNKS_FOR_ANSWERS]
    again = paths[: min(start - 1, _CHUNKS_FOR_ANSWERS - len(ahead))]
    for path in (*ahead, *again):
        yield from read_table(path, columns=["answer"])["answer"].to_pylist()


def _draw(sample: MeasuredSample, answer: str) -> int:
    return sample.key.seed(0, use=f"note-dependence/{answer}")
