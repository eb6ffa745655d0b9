"""Where a reference's value stands in a text."""

from __future__ import annotations

import sys
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vpgea.grading.registry import canonical_answers, find_value, value_is_distinct


@pytest.mark.parametrize(
    ("text", "reference", "offset"),
    [
        ("costs $18.", "18", 7),
        ("18 .", "18", 0),
        ("= 180, then 18", "18", 12),
        ("3.18 and 18", "18", 9),
        ("18,000", "18", None),
        ("18, 000", "18", 0),
        ("2,18", "18", None),
        ("x18", "18", None),
        ("18th", "18", None),
        (r"2\cdot18", "18", 6),
        ("20-18", "18", 3),
        ("20 - 18", "18", 5),
        ("= -18", "18", None),
        ("= -18", "-18", 2),
        ("3-18", "-18", None),
        ("18.0 left", "18", 0),
        ("18.05", "18", None),
        ("1/18", "18", None),
        ("18/5", "18", None),
        ("it is 1,234 or 1234", "1234", 6),
        ("it is 1234", "1,234", 6),
        ("11,234", "1234", None),
        (r"so \frac{3}{4} or 0.75", r"\frac{3}{4}", 3),
        ("0.75", "3/4", 0),
        ("3/4", "0.75", 0),
        ("13/4", "3/4", None),
        ("so x + 1", "x+1", 3),
        ("the East", r"\text{east}", 4),
        ("Easter", "east", None),
        ("twenty five sheep", "twenty five", 0),
        ("nothing", "18", None),
        ("", "18", None),
    ],
)
def test_find_value(text: str, reference: str, offset: int | None) -> None:
    assert find_value(text, reference) == offset


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        (r"\frac{3}{4}", r"so >>\dfrac{3}{4}"),
        (r"\frac{3}{4}", r"so >>\frac34"),
        (r"\frac{3}{4}", r"so >>\tfrac 3 4"),
        (r"\frac{3}{4}", "so >>3 / 4"),
        (r"\frac{3}{4}", "so >>.75"),
        (r"\frac{3}{4}", "so >>¾"),
        (r"\frac{3}{4}", r"so >>75\%"),
        (r"-\frac{1}{2}", r"so >>\frac{-1}{2}"),
        (r"-\frac{1}{2}", "so >>−1/2"),
        (r"-\frac{1}{2}", "so >>-0.50"),
        (r"\frac{9}{5}", r"so >>1\frac{4}{5}"),
        (r"\frac{9}{5}", "so >>1 4/5 cups"),
        ("12000", r"so >>12{,}000"),
        ("12000", r"so >>12\,000"),
        ("12000", r"so >>12,\!000"),
        ("12000", "so >>12 000 people"),
        ("12000", r"so >>1.2\times10^4"),
        ("12.5", "so $>>12.50"),
        ("12.5", r"so \$>>12.50$"),
        ("1024", "so >>2^{10}"),
        ("1024", "so >>2¹⁰ bytes"),
        ("100000", "so >>10^5"),
        ("15%", r"so >>15\%"),
        ("15%", "so >>15 percent"),
        ("15%", "so >>0.15"),
        (r"\frac{\pi}{12}", "so >>π/12"),
        (r"\frac{\pi}{12}", r"so >>\dfrac{1}{12}\pi"),
        (r"5\sqrt{2}", "so >>5√2"),
        (r"5\sqrt{2}", r"so >>5 \sqrt 2"),
        (r"5\sqrt{2}", r"so >>5\cdot\sqrt{2}"),
        (r"5\sqrt{2}", r"so >>\sqrt{50}"),
        (r"\frac{\sqrt{2}}{2}", r"so >>\frac{1}{\sqrt{2}}"),
        (r"(3, \frac{\pi}{2})", r"so \left>>(3, \frac{\pi}{2}\right)"),
        (r"\left( 3, \frac{\pi}{2} \right)", "so >>(3,π/2)"),
        (r"\{1,2,3\}", r"so \{>>3, 1, 2\}"),
        ("-2, 7, 11", "so >>-2, 11 and 7"),
        ("90^\\circ", "so >>90°"),
        ("12 cm", "so >>12cm"),
        ("x = 15", "so >>15"),
        ("x^2+1", "so >>x² + 1"),
        (r"\frac{x}{2}", r"so >>\dfrac x2"),
        (r"y \le 3", "so >>y ≤ 3"),
        ("18", "so >>1８"),
        ("18", r"so \boxed{>>18}"),
        ("18", r"so \mathbf{>>18}"),
        ("18", r"so >>18\text{ cm}"),
        ("18", "so >>18."),
        ("18", "so **>>18**"),
        ("18", "so >>18°"),
        ("18", "so >>18! That"),
        ("18", "so >>18/hour"),
        ("18", "so >>18 > 3"),
        ("18", "所以>>18个"),
        ("-18", "so >>-18"),
        ("-18", "so >>-$18"),
        ("-18", "so $>>-18$"),
    ],
)
def test_a_value_is_found_in_any_spelling(reference: str, text: str) -> None:
    """`>>` marks the place."""
    assert find_value(text.replace(">>", ""), reference) == text.index(">>")


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        *(("18", text) for text in (r"\sqrt{18}", "√18", r"\sqrt[3]{18}", "18:30", "3:18", "18%", "18 %", r"18\,\%")),
        *(("18", text) for text in ("a_{18}", "a_18", "2^{18}", "x^{18}", "x^18", "18^2", "18²", "e^{x+18}", "118")),
        *(("18", text) for text in ("1.18", "18.5", "18,5", "0.18", "180", "-18", "= − 18")),
        *(
            ("18", text)
            for text in ("is -18", "= -$18", r"\cdot -18", "2,18", "1.18.5", "18.5.1", "18th", "18x", "x18")
        ),
        *(("18", text) for text in (r"\frac{18}{5}", r"\frac{5}{18}", r"\frac{x}{18}", "18/5", "5/18", "18/x", "x/18")),
        *(("18", text) for text in (r"18\pi", "18π", r"18\sqrt{2}", r"18\sqrt{x}", r"18\frac{1}{2}", "18½", "18 1/2")),
        *(("18", text) for text in ("18!=", "18(x+1)", "f(18)", r"\sin 18^\circ", r"\log{18}", r"\binom{18}{2}")),
        *(("18", text) for text in ("36/2", r"\sqrt{324}", "COVID-18", "3/18/2020", "18e3", r"18\times10^3", "1 018")),
        *((r"5\pi", text) for text in (r"2.5\pi", r"25\pi", r"5\pi^2", r"5\pi r", "5", r"\pi")),
        *((r"2\sqrt{3}", text) for text in (r"12\sqrt{3}", r"2\sqrt{30}", r"2\sqrt{3}x", "2", r"\sqrt{3}")),
        *(("3x+2", text) for text in ("13x+2", "3x+25", "3x+2y", "3x+2^k", "5+3x+2", "3x + 2 - y", "3X+2")),
        *((r"\frac{3}{4}", text) for text in ("13/4", "3/40", r"2\frac{3}{4}", r"\frac{3}{4}x", "3/4/2020", "4/3")),
        *(("-2, 7, 11", text) for text in ("-2, 7", "-2, 7, 11, 13", "5, -2, 7, 11", "-2, 7, 7", "2, 7, 11")),
        *(("(1,2)", text) for text in ("(2,1)", "(1,2,3)", "1,2", "(1,20)")),
        *(("52_8", text) for text in ("52_9", "52", "152_8")),
        *(("3", text) for text in ("9^{9^9}", "3^{9^9}", "10^{-3}", "3^{3^3}")),
        *(("even", text) for text in ("evening", "uneven")),
        ("18", ""),
    ],
)
def test_no_other_value_is_taken_for_it(reference: str, text: str) -> None:
    assert find_value(text, reference) is None
    assert find_value(f"Then {text} and", reference) is None


def test_a_percentage_is_a_number_where_the_question_asks_for_one() -> None:
    assert find_value("it is 18%", "18", question="What percentage is that?") == 6
    assert find_value("it is 18%", "18", question="How many are there?") is None


@pytest.mark.parametrize(
    ("text", "reference", "offset"),
    [
        ("it takes 27.50 seconds", "B", 9),
        ("so (B) is right", "B", 4),
        ("so B.", "B", 3),
        ("b or not", "B", None),
        ("it takes 12 seconds", "B", None),
        ("A train takes 12 s", "A", 14),
        ("A train is fast, so (A)", "A", 21),
        ("the answer is A", "A", 14),
        ("I think not", "I", None),
        ("a cat has it", "C", 0),
        ("the cats have it", "C", None),
    ],
)
def test_of_multiple_choice_the_letter_and_the_text_of_its_option_count(
    text: str, reference: str, offset: int | None
) -> None:
    options = ["12 s", "27.5", "a cat", "15", "16", "17", "18", "19", "twenty"]
    assert find_value(text, reference, options=options) == offset
    assert not value_is_distinct(reference, "Which?", options=options)


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_number_is_found_in_itself_and_in_no_other(value: int, other: int) -> None:
    text = f"so we get {other:,} in all."
    assert (find_value(text, str(value)) is not None) == (value == other)


_spellings = st.sampled_from(
    [r"\frac{{{0}}}{{{1}}}", r"\dfrac{{{0}}}{{{1}}}", "{0}/{1}", r"\tfrac{{ {0} }}{{ {1} }}", "{0} / {1}"]
)


@given(st.integers(1, 500), st.integers(2, 500), _spellings, _spellings, st.text(" ,;=\n$(", max_size=5))
def test_every_spelling_of_a_fraction_finds_every_other(
    top: int, bottom: int, reference: str, written: str, before: str
) -> None:
    value = Fraction(top, bottom)
    assume(value.denominator > 1)
    text = f"{before}{written.format(top, bottom)}."
    assert find_value(text, reference.format(value.numerator, value.denominator)) == len(before)
    assert find_value(text, str(value + 1)) is None


@given(
    st.text("18.,/-+^_{}()[]$\\ \nx%!:πfracsqt√½²", max_size=60), st.text("18.,/-^_{}(\\ xπ√", min_size=1, max_size=9)
)
def test_any_text_is_searched_and_a_place_is_one_of_the_text(text: str, reference: str) -> None:
    offset = find_value(text, reference)
    assert offset is None or not text[offset].isspace()


@pytest.mark.parametrize(
    "piece", ["1", "1,234,", "1 234 ", "9^{9^9}", r"\frac{", r"\frac{1}{", "{", "1/", "-$", "½", "2²", r"\sqrt{7}"]
)
def test_the_work_grows_with_the_length_of_a_text_and_not_faster(piece: str) -> None:
    """Counted in steps of the interpreter, so that a busy machine changes nothing."""
    short, long = (_steps(piece * (length // len(piece))) for length in (2_000, 8_000))
    assert long <= 5 * short


def _steps(text: str) -> int:
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        find_value(text, "987654321")
    finally:
        sys.setprofile(None)
    return steps


@pytest.mark.parametrize(
    ("reference", "question", "distinct"),
    [
        ("18", "How many?", True),
        ("18", "Take 18 of them.", False),
        ("18", "Take 180 of them.", True),
        ("5", "How many?", False),
        ("-5", "How many?", False),
        ("C", "Which?", False),
        (r"\text{east}", "Which way?", True),
        ("1,234", "There are 1234.", False),
        (r"\frac{3}{4}", "Take 0.75 of it.", False),
        ("18", "Take a_{18} of it.", True),
        ("x = 5", "How many?", False),
        (r"\frac{1}{2}", "How much?", True),
    ],
)
def test_value_is_distinct(reference: str, question: str, distinct: bool) -> None:
    assert value_is_distinct(reference, question) is distinct


@pytest.mark.parametrize(
    ("reference", "grader", "strings"),
    [
        (" 18 ", "math", ["18"]),
        ("1,234", "math", ["1,234", "1234"]),
        (r"\frac12", "math", [r"\frac12", r"\frac{1}{2}", "1/2", "0.5"]),
        ("1/3", "math", ["1/3", r"\frac{1}{3}"]),
        ("Twice 26 is 2*26=52.\n#### 52", "math", ["52"]),
        ("0.50", "math", ["0.50", "0.5", r"\frac{1}{2}", "1/2"]),
        (r"\text{(C)}", "choice", [r"\text{(C)}", "C"]),
        ("two  five", "exact", ["two  five", "two five"]),
        ("1,234", "my.module:grade", ["1,234"]),
    ],
)
def test_canonical_answers(reference: str, grader: str, strings: list[str]) -> None:
    assert canonical_answers(reference, grader) == strings
