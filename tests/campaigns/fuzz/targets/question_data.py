"""What the targets of question files share: good rows, ways to load, and what has to hold of loaded questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.campaigns.fuzz.probe import ACCEPTED
from vpgea.config.schema import DataConfig, FieldMapping
from vpgea.questions.load import load_questions

ROWS: list[dict[str, Any]] = [
    {"id": "a", "question": "1 + 1?", "answer": "2"},
    {"id": 7, "question": "Half of 5?", "answer": 2.5},
    {"id": "c", "question": "Which?", "answer": "B", "options": ["x", "y", "z"], "answer_index": 1},
]
_columns = st.sampled_from(["id", "question", "answer", "options", "ID", "no such column"])
_any_loading = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.integers(1, 4),
        "skip_bad_rows": st.just(True),
        "fields": st.fixed_dictionaries(
            {},
            optional={
                "id": st.one_of(st.none(), _columns),
                "options": st.one_of(st.none(), _columns),
                "question": _columns,
                "answer": _columns,
            },
        ),
    },
)
loadings: st.SearchStrategy[dict[str, Any]] = st.one_of(st.just({}), st.just({"skip_bad_rows": True}), _any_loading)


def load(path: Path, loading: dict[str, Any]) -> str:
    """Load a file; questions that come of it are usable as they are."""
    fields = FieldMapping(**loading.get("fields", {}))
    loaded = load_questions(DataConfig(**{**loading, "dataset": str(path), "fields": fields}), offline=True)
    assert loaded.questions, "no questions, and no error"
    assert len({question.id for question in loaded.questions}) == len(loaded.questions)
    for question in loaded.questions:
        assert question.text.strip()
        assert question.answer.strip()
        assert not question.options or question.answer in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(question.options)]
    return ACCEPTED
