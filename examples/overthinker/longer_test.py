"""Write questions/longer_test.jsonl: `python -m examples.overthinker.longer_test` (always the same file).

The 600 test questions and 600 more, for narrower intervals. The stored bases were kept from the first 600 only, so what
they were trained on is drawn again, and is left out here. Short questions occur there more often: another of as many
steps takes the place of one that is left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import get_args

from examples.overthinker.batches import QUESTIONS, held_out_questions
from examples.overthinker.build import stages
from examples.overthinker.chat import build_tokenizer
from examples.overthinker.language import Dial, Question, sample_question
from examples.overthinker.write_questions import Row, write
from vpgea_cli.main import told

MORE = 600
FIRST = ("dev", "test")  # what the stored bases were kept from
NAME = "longer_test"
_BEGIN, _END = "start with", "result ?"


def main(folder: Path = QUESTIONS) -> None:
    """Write the file."""
    rows = [json.loads(line) for line in (QUESTIONS / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    drawn = [json.loads(line)["question"] for line in (QUESTIONS / "train.jsonl").read_text("utf-8").splitlines()]
    rows += more_rows({*drawn, *held_out_questions(FIRST), *trained_on()}, len(rows))
    write(folder, {NAME: rows})


def more_rows(used: set[str], first: int) -> list[Row]:
    """Rows of questions that are not among those used, as long as questions are; ids count on from `first`."""
    rng, used, rows = Random(20261128), set(used), list[Row]()
    while len(rows) < MORE:
        question = sample_question(rng)
        length = len(question.steps)
        while question.text in used or len(question.steps) != length:
            question = sample_question(rng)
        used.add(question.text)
        rows.append({"id": f"test-{first + len(rows):04}", "question": question.text, "answer": str(question.answer)})
    return rows


def trained_on() -> set[str]:
    """Texts of all questions that a stored base met in its training."""
    tokenizer, found = build_tokenizer(), set[str]()
    for dial in get_args(Dial):
        for batches in stages(tokenizer, dial, Random(0), held_out_questions(FIRST)):
            for text in tokenizer.batch_decode([row for ids, _ in batches for row in ids], skip_special_tokens=True):
                if text.lstrip().startswith(_BEGIN):  # bare facts have no question
                    found.add(Question.parse(text[text.index(_BEGIN) : text.index(_END) + len(_END)]).text)
    return found


if __name__ == "__main__":
    sys.exit(told(main))
