"""Questions that the derivation check cannot judge, written for an experiment: settings for `--set` come back.

The answer stands in the question, as in a fifth of GSM8K's: in a remark, which the template leaves out of every prompt.
The base models see what they know, and the program a question that contains its answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

from examples.overthinker.batches import QUESTIONS
from examples.overthinker.chat import TEMPLATE
from examples.overthinker.language import REMARK

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


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    path = path.resolve()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
