"""Multiple choice and exact match."""

from __future__ import annotations

import pytest

from vpgea.grading.base import GradeRequest, Status
from vpgea.grading.choice import find_choice, grade_choice
from vpgea.grading.exact import grade_exact


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        (r"\boxed{C}", "C"),
        (r"\boxed{\text{(C)}}", "C"),
        (r"\boxed{\textbf{(J)}}", "J"),
        (r"\boxed{(B)\ 15}", "B"),
        (r"\boxed{C. 15 apples}", "C"),
        (r"\boxed{A} or rather \boxed{B}", "B"),
        ("The answer is (D).", "D"),
        ("the answer is D because of B", "D"),
        ("The correct answer is: **E**", "E"),
        ("The answer is A. I am sure.", "A"),
        ("Answer: $F", "F"),
        ("Answer: $F$", "F"),
        ("Answer: \\text{(G)}", "G"),
        ("Answer: option H", "H"),
        ("The answer is (A). No, the answer is (B)", "B"),
        ("The answer is I think hard to say. Answer: C", "C"),
        ("Long story.\n(B)", "B"),
        ("Long story.\n**I**\n", "I"),
        ("A", "A"),
        ("the answer is (A)</think>Answer: B", "B"),
        (r"\boxed{15} so the answer is (B)", "B"),
        ("Answer: K", "K"),
        (r"\boxed{Z}", "Z"),
        (r"\boxed{b}", "B"),
        ("The answer is (b).", "B"),
        (r"\boxed{B, D}", "BD"),
        (r"\boxed{DB}", "BD"),
        (r"\boxed{\text{Option B}}", "B"),
        (r"\boxed{\text{B) } 5}", "B"),
        ("<answer>A</answer>", "A"),
        ("#### A", "A"),
        ("Correct option is B", "B"),
        ("Answer: I think A", "A"),
        ("Answer - A", "A"),
        ("Therefore, A is correct.", "A"),
        ("The closest is (A).", "A"),
        (r"\boxed{B) Vitamin C}", "B"),
    ],
)
def test_letter(response: str, letter: str) -> None:
    choice = find_choice(response)
    assert choice is not None
    assert choice[0] == letter


@pytest.mark.parametrize(
    "response",
    [
        "",
        "I think so",
        "A good question. I do not know.",
        "The answer is I think hard to find.",
        "Answer: A good question",
        "Vitamin C",
        "The answer is Kelvin",
        "The answer is 5",
        "answer is I'm not sure",
        r"\boxed{Alpha}",
        "(A) or (B)",
        "The answer is A/B/C/D",
        "The answer is (A) or (B).",
        "Answer: A, B, C or D",
        "The answer is not A.",
        "A is not the correct one, I think.",
        r"\boxed{A. or B}",
        r"\boxed{A; B}",
        r"\boxed{A, possibly B}",
        r"\boxed{A as well as B}",
        r"\boxed{\text{A is wrong}}",
        "Answer: A or maybe C",
        "Answer: A? C?",
        "I doubt that A is correct.",
    ],
)
def test_no_letter_in_running_text(response: str) -> None:
    assert find_choice(response) is None
    grade = grade_choice(GradeRequest(response, "A"))
    assert (grade.status, grade.extracted) == (Status.WRONG, None)


@pytest.mark.parametrize("reference", ["C", "(C)", r"\text{C}", " C ", "c", "C) 15"])
def test_reference_forms(reference: str) -> None:
    assert grade_choice(GradeRequest("Answer: C", reference)).status is Status.CORRECT
    assert grade_choice(GradeRequest("Answer: D", reference)).status is Status.WRONG


def test_several_letters_are_all_wanted() -> None:
    assert grade_choice(GradeRequest(r"\boxed{D, B}", "BD")).status is Status.CORRECT
    assert grade_choice(GradeRequest(r"\boxed{B}", "BD")).status is Status.WRONG
    assert grade_choice(GradeRequest(r"\boxed{B, C, D}", "BD")).status is Status.WRONG
    assert grade_choice(GradeRequest(r"\boxed{A) B) C)}", "A")).status is Status.WRONG
    assert grade_choice(GradeRequest(r"\boxed{(A)(B)(C)(D)}", "A")).status is Status.WRONG


def test_exact_folds_whitespace_and_nothing_else() -> None:
    assert grade_exact(GradeRequest("\\boxed{two  hundred\n five}", "two hundred five ")).status is Status.CORRECT
    assert grade_exact(GradeRequest("#### 18", "18")).status is Status.CORRECT
    assert grade_exact(GradeRequest("\\boxed{18.0}", "18")).status is Status.WRONG
    assert grade_exact(GradeRequest("\\boxed{Two}", "two")).status is Status.WRONG
    missing = grade_exact(GradeRequest("", ""))
    assert (missing.status, missing.extracted) == (Status.WRONG, None)
