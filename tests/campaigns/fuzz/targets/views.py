"""Prompts of both views from odd questions, and odd ids as paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from tests.campaigns.fuzz.probe import ACCEPTED, Probe, odd_texts
from tests.support import tiny
from vpgea.config.schema import ViewsConfig
from vpgea.prompts.views import Views
from vpgea.questions.load import Question
from vpgea.storage.schemas import POSTERIOR, PRIOR

_TEMPLATES = ("r1", "r1-old", "qwen3", "qwen2.5", "llama-3.1")


class Draw(NamedTuple):
    """A question, a path, and a place in its text."""

    template: str
    question: Question
    path: list[int]
    offset: int


def _is_text(text: str) -> bool:
    """As every question's texts are: not empty, and UTF-8."""
    return bool(text.strip()) and not any("\ud800" <= character <= "\udfff" for character in text)


def _draws(vocabulary: int) -> st.SearchStrategy[Draw]:
    texts = odd_texts.filter(_is_text)
    options = st.one_of(st.just(()), st.lists(texts, min_size=2, max_size=4).map(tuple))
    ends = st.sampled_from([0, 1, vocabulary - 1, vocabulary, vocabulary + 1, 2**31 - 1])
    ids = st.one_of(st.integers(vocabulary - 12, vocabulary - 1), st.integers(0, vocabulary - 1), ends)
    return st.builds(
        Draw,
        st.sampled_from(_TEMPLATES),
        st.builds(Question, texts, texts, texts, options),
        st.lists(ids, max_size=12),
        st.integers(-1, 200),
    )


@contextmanager
def probe(folder: Path) -> Iterator[Probe]:
    """Both prompts end in the same ids, and every cut lies within the path."""
    tokenizers = {name: tiny.make_tokenizer(name) for name in _TEMPLATES}
    views = {name: Views(made, ViewsConfig(), [made.eos_token_id]) for name, made in tokenizers.items()}

    def check(draw: Draw) -> str:
        view, question, path = views[draw.template], draw.question, draw.path
        prior, posterior = view.prior_prompt(question), view.posterior_prompt(question, answer=question.text)
        tail = view.encode(view.assistant_tail)
        assert prior[len(prior) - len(tail) :] == posterior[len(posterior) - len(tail) :] == tail
        for which in (PRIOR, POSTERIOR):
            preview = view.preview(question, which)
            assert len(preview.tokens) == len(preview.ids)
        view.control_token_in(question)
        assert view.answer_ids(question.answer)
        length = view.thinking_length(path)
        assert length is None or 0 <= length <= len(path)
        assert 0 <= view.tokens_before(path, draw.offset) <= len(path)
        view.decode(prior + path[:length] + view.end_of_thinking_ids + view.answer_cue_ids)
        return ACCEPTED

    yield Probe(_draws(min(len(made) for made in tokenizers.values())), check)
