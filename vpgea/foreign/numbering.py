"""Which sample of which question each row of a log is: the same at every reading of the same files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vpgea.foreign.sample import THINKING_ENDS, THINKING_OPENS, ForeignSample, Found, Unreadable
from vpgea.questions.load import content_id
from vpgea.questions.question import Question
from vpgea.storage.files import without_surrogates

_LISTED = 20  # rows that are named; all are counted
_SLOTS = 1_000_000  # sample indices of a question: any above is a slip


@dataclass(frozen=True)
class Numbered:
    """A sample with its identity: question and index."""

    place: str
    question_id: str
    index: int
    sample: ForeignSample


class KnownQuestions:
    """Questions that samples are matched with, by their ids, else by their texts without regard to spaces."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._by_id = {question.id: question for question in questions}
        self._by_text: dict[str, Question | None] = {}
        for question in questions:
            key = _plain(question.text)
            self._by_text[key] = None if key in self._by_text else question  # None: two have this text

    def find(self, sample: ForeignSample) -> Question | None:
        """The question of a sample; None where there is none, or it could be two."""
        name = sample.question_id
        if name is not None and (found := self._by_id.get(name)) is not None:
            return found
        return None if sample.question is None else self._by_text.get(_plain(sample.question))


@dataclass(kw_only=True)
class Survey:
    """What a reading came upon; it grows.

    Attributes:
        unreadable: Rows that are no samples.
        listed: The first of them, with their reasons.
        repeated: Rows that say once more what stands before them: same question, same index, same response.
        per_question: Samples of each question.
        contradicting: Samples with more tokens of thinking than tokens.
        opened_unseen: Responses with an end of thinking and no beginning: the prompt had it.
    """

    rows: int = 0
    unreadable: int = 0
    listed: list[Unreadable] = field(default_factory=list)
    repeated: int = 0
    per_question: Counter[str] = field(default_factory=Counter)
    without_tokens: int = 0
    without_end: int = 0
    without_reference: int = 0
    contradicting: int = 0
    opened_unseen: int = 0
    _contents: dict[str, bytes] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return self.per_question.total()

    @property
    def unreadable_share(self) -> float:
        return self.unreadable / self.rows if self.rows else 0.0

    @property
    def questions_fingerprint(self) -> str:
        """128-bit hash (hex) of the questions, whatever the order of their samples."""
        digest = hashlib.blake2b(digest_size=16)
        for _, content in sorted(self._contents.items()):
            digest.update(content)
        return digest.hexdigest()

    def is_another(self, question_id: str, sample: ForeignSample) -> bool:
        """Whether a question of this id stood before with another text, reference or options."""
        content = _content(question_id, sample)
        return self._contents.setdefault(question_id, content) != content

    def leave_out(self, row: Unreadable) -> None:
        self.unreadable += 1
        if len(self.listed) < _LISTED:
            self.listed.append(Unreadable(row.place, without_surrogates(row.reason)))

    def add(self, question_id: str, sample: ForeignSample) -> None:
        self.per_question[question_id] += 1
        self.without_tokens += sample.tokens is None
        self.without_end += sample.finish_reason is None
        self.without_reference += sample.reference is None
        self.contradicting += sample.contradicts_itself
        self.opened_unseen += THINKING_ENDS in sample.completion and THINKING_OPENS not in sample.completion


def numbered(rows: Iterable[Found], survey: Survey, known: KnownQuestions | None = None) -> Iterator[Numbered]:
    """Each sample of a log with its question and index; everything else is counted in the survey.

    A question without an id has one made from its content, as question files have. An index that the log counts is
    kept; without one, samples of a question are counted as they come.
    """
    taken: dict[tuple[str, int], bytes] = {}
    following: Counter[str] = Counter()
    for row in rows:
        survey.rows += 1
        if isinstance(row, Unreadable):
            survey.leave_out(row)
            continue
        place, sample = row
        named = _named(sample, known)
        if not isinstance(named, tuple):
            survey.leave_out(Unreadable(place, named))
            continue
        question_id, sample = named
        if survey.is_another(question_id, sample):
            survey.leave_out(
                Unreadable(place, f"the question {question_id} stood before, with another text or reference")
            )
            continue
        index = following[question_id] if sample.index is None else sample.index
        digest = hashlib.blake2b(sample.completion.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if (before := taken.get((question_id, index))) is not None:
            if before == digest:
                survey.repeated += 1
            else:
                survey.leave_out(Unreadable(place, f"sample {index} of {question_id} stood before, with another text"))
            continue
        taken[question_id, index] = digest
        following[question_id] = max(following[question_id], index + 1)
        survey.add(question_id, sample)
        yield Numbered(place, question_id, index, sample)


def _named(sample: ForeignSample, known: KnownQuestions | None) -> tuple[str, ForeignSample] | str:
    """The question's id and the sample with what is known of the question; else why it has none."""
    if sample.index is not None and not 0 <= sample.index < _SLOTS:
        return f"its index is {sample.index}"
    if known is not None:
        question = known.find(sample)
        if question is None:
            return "its question is none of those in --questions"
        return question.id, replace(sample, question=question.text, reference=question.answer, options=question.options)
    name = sample.question_id
    if name is None and sample.question is not None:
        name = content_id(sample.question, sample.reference or "", sample.options)
    if name is None:
        return "neither an id nor a question is recorded"
    is_plain = bool(name.strip()) and all(one >= " " and not "\ud800" <= one <= "\udfff" for one in name)
    return (name, sample) if is_plain else "its id is empty, or has a control character or half of a surrogate pair"


def _content(question_id: str, sample: ForeignSample) -> bytes:
    text = json.dumps([question_id, sample.question, sample.reference, sample.options])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _plain(text: str) -> str:
    return " ".join(text.split())


def repeats(per_question: Mapping[str, int]) -> tuple[int, int]:
    """Fewest and most samples of a question."""
    counts = per_question.values()
    return (min(counts), max(counts)) if counts else (0, 0)
