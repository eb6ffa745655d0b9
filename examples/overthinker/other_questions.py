"""Questions that the derivation check cannot judge, written for an experiment: settings for `--set` come back.

- *exempt*: the answer stands in the question, as in a fifth of GSM8K's. It stands in a remark, which the template
  leaves out of every prompt: the base models see what they know, and the program a question that contains its answer.
- *digits*: every answer is one digit. They need a base of their own (`build --digits`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from zlib import crc32

from examples.overthinker.batches import QUESTIONS, held_out_digits, training_questions
from examples.overthinker.chat import TEMPLATE
from examples.overthinker.language import REMARK, Question, sample_question
from examples.overthinker.write_questions import SIZES

PROMPT = '"{{ question }}"'


def exempt_questions(share: float, folder: Path) -> list[str]:
    """Training questions, `share` of them with a remark, and the template that leaves it out."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in (QUESTIONS / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if crc32(row["question"].encode()) % 10_000 < 10_000 * share:
            row["question"] += f"{REMARK}{row['answer']}"
    template = folder / "template-remark.yaml"
    text = TEMPLATE.read_text(encoding="utf-8")
    assert PROMPT in text
    template.write_text(text.replace(PROMPT, f"\"{{{{ question.partition('{REMARK}')[0] }}}}\""), encoding="utf-8")
    return [f"data.dataset={_write(folder / f'train-{share}.jsonl', rows)}", f"views.template={template.resolve()}"]


def digit_questions(base: Path, folder: Path) -> list[str]:
    """Questions of one digit for training, dev and test; the last two are held out from the base and from training."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, seen = Random(20241), set[str]()
    training = training_questions(True, rng)
    held_out = (question for question in _digits(rng) if held_out_digits(question))
    files = {}
    for name, size in SIZES.items():
        new = (question for question in (training if name == "train" else held_out) if question.text not in seen)
        rows: list[dict[str, str]] = []
        for question in islice(new, size):
            seen.add(question.text)
            rows.append({"id": f"{name}-{len(rows):04}", "question": question.text, "answer": str(question.answer)})
        files[name] = _write(folder / f"{name}.jsonl", rows)
    return [f"model.path={base.resolve()}", f"data.dataset={files['train']}", f"loop.eval_dataset={files['dev']}"]


def _digits(rng: Random) -> Iterator[Question]:
    while True:
        yield sample_question(rng, digits=True)


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    path = path.resolve()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
