"""Write the question files: `python -m examples.overthinker.write_questions` (always the same files)."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from examples.overthinker.language import sample_question

SIZES = {"train": 4000, "dev": 500, "test": 600}
FOLDER = Path(__file__).with_name("questions")


def main(folder: Path = FOLDER) -> None:
    """No question stands in two files, or twice in one."""
    rng, seen = Random(20240), set[str]()
    for name, size in SIZES.items():
        rows: list[dict[str, str]] = []
        while len(rows) < size:
            question = sample_question(rng)
            if question.text not in seen:
                seen.add(question.text)
                rows.append({"id": f"{name}-{len(rows):04}", "question": question.text, "answer": str(question.answer)})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
