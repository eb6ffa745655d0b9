"""Which questions are of one record, by what they ask."""

from __future__ import annotations

from vpgea.questions.clusters import Numbering


def test_orders_and_copies_are_of_the_record_of_the_first() -> None:
    numbers = Numbering()
    for question_id, text, options, expected in (
        ("rec0/0", "Which?", ("x", "y"), (0, 0)),
        ("rec1/0", "Who?", ("x", "y"), (1, 1)),
        ("rec0/1", "Which? ", ("y", " x"), (2, 0)),
        ("other", "Which?", ("x", "z"), (3, 3)),
        ("twice", "Which?", ("x", "x"), (4, 4)),
        ("open", "Which?", (), (5, 5)),
        ("copy", "Which?", (), (6, 5)),
        ("rec0/1", "another text of a known id", (), (2, 0)),
    ):
        assert numbers.of(question_id, text, options) == expected, question_id
    assert (numbers.questions, numbers.records) == (7, 5)


def test_an_import_needs_choices_for_it() -> None:
    """Its log may have no text, or the last turn alone."""
    numbers = Numbering()
    assert [numbers.of(f"q{n}", "", (), is_imported=True) for n in range(3)] == [(0, 0), (1, 1), (2, 2)]
    assert numbers.of("a", "Which?", ("x", "y"), is_imported=True) == (3, 3)
    assert numbers.of("b", "Which?", ("y", "x"), is_imported=True) == (4, 3)
