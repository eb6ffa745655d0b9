"""What is shown of a sample's reference: the final answer that its grade compared, and the whole where it is more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.measured_rows import prior
from vpgea.inspection.folders import open_source
from vpgea.inspection.samples import parse_key, sample_detail
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.storage.schemas import SAMPLES
from vpgea.storage.shards import table_from_rows, write_table

SOLUTION = "Twice 26 is 2*26=52.\n#### 52"


@pytest.mark.parametrize(
    ("grader", "reference", "answer", "whole"),
    [("math", SOLUTION, "52", SOLUTION), ("math", "52", "52", None), ("exact", SOLUTION, SOLUTION, None)],
)
def test_the_answer_shown_is_the_one_compared(
    tmp_path: Path, grader: str, reference: str, answer: str, whole: str | None
) -> None:
    config: dict[str, object] = {"grading.grader": grader, "model.path": "none"}
    folder = PhaseFolder.open(tmp_path / "r", Manifest(phase="rollout", identity={}, inputs={}, config=config))
    write_table(folder.chunk(0), table_from_rows([prior("a", 0, answer=reference)], SAMPLES))
    folder.complete({})
    about = sample_detail(open_source(tmp_path / "r"), parse_key("a/prior/0")).about
    assert about["answer"] == answer
    assert about.get("reference") == whole
