"""Where a response states its answer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpgea.grading.answers import find_answer
from vpgea.grading.boxes import boxes, last_boxes


def last_box(text: str) -> str | None:
    found = last_boxes(text)
    return found.text if found else None


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"so \boxed{5} and then \boxed{7}.", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{5} wait \boxed{} \boxed{ }", "5"),
        (r"\boxed{5} wait \boxed{7", None),
        (r"\boxed{7 or \boxed{5}", None),
        (r"\boxed 5", "5"),
        (r"the root is $\boxed\frac12$.", r"\frac12"),
        (r"\boxed{3}\boxed{4}", "3, 4"),
        ("- \\boxed{3}\n- \\boxed{4}", "3, 4"),
        (r"Option 1: \boxed{3} Option 2: \boxed{4}", "3, 4"),
        (r"\boxed{3} / \boxed{4}", "3, 4"),
        ("Guess #1: \\boxed{3}\nGuess #2: \\boxed{4}", "3, 4"),
        (r"\boxed{3} or, if that is wrong, \boxed{4}", "3, 4"),
        (r"It could be \boxed{3}. It could be \boxed{4}.", "3, 4"),
        (r"$x = \boxed{3}$, $y = \boxed{4}$", "3, 4"),
        (r"\boxed{7 + \boxed{5}}", r"7 + \boxed{5}"),
        (r"\fbox{3}", "3"),
        (r"\\boxed{3}", "3"),
        (r"\boxed {3}", "3"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\boxed{4}}", r"\boxed{4}"),
        (r"}}} \boxed{4} {{{", "4"),
        (r"$\boxed{1}$ and $\boxed{-2}$", "1, -2"),
        (r"\boxed{1} so \boxed{2}", "2"),
        (r"\boxed{2}, \boxed{2}", "2"),
        (r"Method 1 gives \boxed{4}, method 2 gives \boxed{5}.", "4, 5"),
        (r"\boxed{4}. Or rather, \boxed{5}.", "4, 5"),
        ("no box", None),
        (r"\boxed{", None),
    ],
)
def test_last_box(text: str, box: str | None) -> None:
    assert last_box(text) == box


@pytest.mark.parametrize(
    ("response", "text", "source"),
    [
        (r"A: 3 \boxed{4}", "4", "box"),
        ("<answer>12.5</answer>", "12.5", "tag"),
        ("<answer>-50</answer>", "-50", "tag"),
        ("... = 26\nA: 26", "26", "marker"),
        ("first #### 3\nthen #### 1,234", "1,234", "marker"),
        ("The answer is 5 apples because of this.", "5 apples", "marker"),
        ("The answer is $4.", "$4", "marker"),
        ("**Answer:** 42", "42", "marker"),
        ("**Final Answer**:\n42", "42", "marker"),
        ("Final Answer: The final answer is $\\frac{1}{2}$. I hope it is correct.", "\\frac{1}{2}", "marker"),
        ("Final Answer: The largest $n$ is 34.", "34", "marker"),
        ("the answer is 28 percent\nright", "28 percent", "marker"),
        ("<answer>3</answer>\nNo: the answer is 4", "4", "marker"),
        ("42", "42", "whole"),
        ("**Final Answer**\n\n5", "5", "marker"),
        ("最终答案是 5。", "5", "marker"),
        ("La respuesta es 5.", "5", "marker"),
        ("\\boxed{5}. Wait, that is wrong. The answer is 7.", "7", "marker"),
        ("\\boxed{5}\nThis answer is reasonable.", "5", "box"),
        ("<reasoning>\\boxed{5}</reasoning><answer>7</answer>", "7", "tag"),
        ("[THINK]\\boxed{5}[/THINK] The answer is 7.", "7", "marker"),
        ("answer is 3</think>\\boxed{5}", "5", "box"),
        ("\\boxed{5}<|im_end|>", "5", "box"),
        ("<answer>4</answer> or <answer>5</answer>", "4, 5", "tag"),
        ("#### 4\n#### 5", "4, 5", "marker"),
        ("The answer is 4. The answer is 5.", "4, 5", "marker"),
        ("A: 4\nA: 5", "4, 5", "marker"),
        ("The answer is 5.\nThe answer is 5.", "5", "marker"),
        ("\\boxed{5}\nTherefore, 5 is the answer.", "5", "box"),
        ("\\boxed{5}\n\nCheck: 2+3 = 5. The other answer is 4 which is wrong.", "5", "box"),
        ("\\boxed{5}\n\nA common mistake is 4, which is wrong.", "5", "box"),
        ("The answer is 5 because 4 is too small.", "5", "marker"),
        ("The answer is $5$, because 2+3=5.", "5", "marker"),
        ("The answer is $5$, as 2+3=5.", "5", "marker"),
        ("The answer is 5, since $x=5$ works.", "5", "marker"),
        ("The answer is yes since 5 is odd.", "yes", "marker"),
        ("The answer is 5, which is wrong.", "5 , which is wrong", "marker"),
        ("The answer is 5 as well as 6.", "5 as well", "marker"),
    ],
)
def test_final_answer_and_where_it_stood(response: str, text: str, source: str) -> None:
    answer = find_answer(response)
    assert answer is not None
    assert (answer.text, answer.source) == (text, source)


NO_ANSWERS = [
    r"<think>\boxed{5}",
    r"\boxed{5}, but that is incorrect",
    r"\boxed{5} (this is wrong)",
    "\\boxed{5}\n\nLet me check: 2+2=4. My answer is wrong.",
    r"\boxed{5} is not correct.",
    r"The answer is not \boxed{5}.",
    r"I don't think it is \boxed{5}.",
    r"The answer is \boxed{5}? No.",
    "answer: 5\nActually, scrap that.",
    "So the answer is 5? But that is too simple.\nLet me see.",
    "Suppose the answer is 5. Then there is\na contradiction.",
    "I recall that the correct answer is 5, from\nsomewhere.",
    "A wrong answer: 5",
    "Perhaps the answer is 5.",
    r"\boxed{5}. Sorry, I meant 7.",
    r"~~\boxed{5}~~ 7",
    r"An incorrect solution would give \boxed{5}.",
    "The correct answer is not 7 but 5.",
    "\\boxed{5}\nBut actually it is 4.",
    "\\boxed{5}\nTherefore, 4 is the answer.",
    "\\boxed{5}\nFinal: 4",
    r"Anything but \boxed{5}",
    r"Everything except \boxed{5}",
    r"\boxed{5}{4}",
    "No answer is 5",
    "My friend says the answer is 5",
    r"First \boxed{63}. Correction: the answer is \boxed{",
]


@pytest.mark.parametrize(
    "response", ["", "  ", "I do not know\nand stop", "x" * 300, r"\boxed{5} </think> so what\n?" + "\n.", *NO_ANSWERS]
)
def test_no_answer(response: str) -> None:
    assert find_answer(response) is None


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{}." * 100_000,
        r"\boxed{" * 100_000,
        "\\" * 400_000,
        "answer is " * 50_000,
        "<answer>" * 50_000,
        " " * 400_000 + "x\n",
        "#### " * 50_000,
        "{" * 400_000,
        r"\boxed" + " " * 400_000,
    ],
    ids=["boxes", "open boxes", "backslashes", "markers", "tags", "spaces", "hashes", "braces", "box and spaces"],
)
def test_scan_of_a_looping_text_is_fast(text: str) -> None:
    begin = time.process_time()
    find_answer(text)
    assert time.process_time() - begin < 2.0


def reference_boxes(text: str) -> list[str]:
    r"""Boxes by brute force: for each `\boxed{`, walk to its partner. Quadratic, for short texts."""
    found = []
    for start in range(len(text)):
        if not text.startswith(r"\boxed{", start):
            continue
        depth, at = 0, start + 6
        while at < len(text):
            if text[at] == "\\" and at + 1 < len(text):
                at += 2
                continue
            depth += (text[at] == "{") - (text[at] == "}")
            if depth == 0:
                found.append(text[start + 7 : at])
                break
            at += 1
    return found


@given(st.lists(st.sampled_from([r"\boxed{", "{", "}", "x", " ", ",", r"\{", r"\}", r"\alpha ", "\n"]), max_size=40))
def test_scanner_agrees_with_brute_force(pieces: list[str]) -> None:
    text = "".join(pieces)
    scanned = sorted((start, text[inside:end]) for start, inside, end in boxes(text))
    assert [content for _, content in scanned] == reference_boxes(text)


@given(st.text(alphabet=st.characters(), max_size=300))
def test_any_text_is_survived(text: str) -> None:
    answer = find_answer(text)
    assert answer is None or answer.text.strip()


@given(st.text(alphabet="{}\\boxed 1,.$<>/answeris#:A\n", max_size=200))
def test_any_markup_is_survived(text: str) -> None:
    box = last_box(text)
    assert box is None or box.strip()
