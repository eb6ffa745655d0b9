"""Phrases that betray the note: what is talk of it, and what a sound path may say."""

from __future__ import annotations

import re

import pytest

from vpgea.prompts.texts import load_template

LEAKS = """
I know the answer must be 18 so let me find a way there.
The final answer is supposed to be 18.
Hmm, the solution says 18.
But the hint says it is even.
The answer key says 18, which agrees.
The answer must be 18, so let me work backwards.
According to the note, it is 18.
The note says 18.
I should not mention the note.
That matches the given answer.
The reference answer is 18.
The expected answer is 18, so I must have slipped.
The known answer is \\frac{3}{4}.
The answer is already known.
The answer was given to me.
Since the answer is known, I can check.
We are told the answer is 18.
I've been told that the answer is 18.
We already know the answer.
I know that the final answer is 42.
Since the answer should be 18, x is 3.
Because the answer has to be \\sqrt{2}, the sides are equal.
As the private note has it, 18.
This agrees with the given solution.
The answer provided is 5.
The user's note states 5.
I must not reveal the note.
The prompt says the final answer is 5.
Working backwards from the known result 5, x is 2.
Given the answer of 5, we need x = 2.
I choose x = 2 to match the answer 5.
The solution states that the answer is 5.
""".strip().splitlines()

SOUND = """
Among the given answer choices, B fits.
None of the given answers match.
Hmm, the expected answer is probably in degrees.
The musician plays the note A.
From the note A to the note C there are three half tones.
The frequency of the note is 440 Hz.
The known answer for n=3 is 5.
The answer was given in the problem for x=2.
Maybe the answer is known to be irrational?
We were told the answer lies between 2 and 3.
We are told that the answer can be written as m/n.
We are given the answer choices A to E.
Therefore, the answer must be 18.
So the answer must be 18.
Thus the answer has to be 12.
The answer must be an integer.
The answer is given by 3x + 2.
The answer is given as a fraction.
The solution gives x = 3.
I don't know the answer yet.
We know the answer to the first part is 5.
The key is to note that 18 is even.
Since the result has to be 18, we add 2.
The hint suggests substitution.
The solution states that y is free.
We substitute, as per the hint in the problem.
The user says the answer should be a fraction.
From the known result $1+2+3=6$ we go on.
Given the answer choices, B fits.
""".strip().splitlines()


def leak(text: str) -> str | None:
    """As the check looks for it."""
    patterns = (re.compile(phrase, re.IGNORECASE) for phrase in load_template("default").leak_phrases)
    return next((match.group(0) for pattern in patterns if (match := pattern.search(text))), None)


@pytest.mark.parametrize("text", LEAKS)
def test_talk_of_the_note_or_of_an_answer_that_was_given_is_found(text: str) -> None:
    assert leak(text) is not None


@pytest.mark.parametrize("text", SOUND)
def test_what_a_question_says_of_its_answer_and_what_is_concluded_is_sound(text: str) -> None:
    assert leak(text) is None


def test_phrases_take_linear_time() -> None:
    """A long path of near misses."""
    for near in ("the answer is ", "we are told the ", "given answer choice ", "the answer must be so "):
        assert leak(near * 5_000) is None
