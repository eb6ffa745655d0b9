"""What the kinds of gates let through, on a round written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.overthinker.gates import main, read_accepted
from tests.support.measured_rows import posterior, prior, select_from, write_pair
from vpgea.config.resolve import resolve

ASKED = {"question": "start with 34 . add 7 . subtract 12 . add 25 . what is the result ?", "answer": "54"}
SOUND = " 34 add 7 gives 41 . 41 subtract 12 gives 29 . 29 add 25 gives 54 . </think> \\boxed{ 54 } <|end|>"
COPIED = " 34 add 7 gives 41 . so 54 . </think> \\boxed{ 54 } <|end|>"


@pytest.fixture(scope="module")
def round_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound path, a copied one that the filter missed, and one that it rejected; b is half of the prior's u."""
    folder = tmp_path_factory.mktemp("gates") / "round-000"
    rows = [
        prior("q", 0, thinking=30, **ASKED),
        prior("q", 1, status="wrong", **ASKED),
        posterior("q", 0, completion=SOUND, note_dependence=0.0, **ASKED),
        posterior("q", 1, completion=COPIED, note_dependence=0.5, other_view_logprobs=[-1.25] * 4, **ASKED),
        posterior("q", 2, completion=COPIED, note_dependence=7.0, other_view_logprobs=[-9.0] * 4, **ASKED),
    ]
    select_from(resolve(options={}).config, *write_pair(folder, rows))
    return folder


def test_gates_by_kind_against_values_by_hand(round_folder: Path) -> None:
    found = read_accepted(round_folder)
    assert found.unsound.tolist() == [0, 1]
    np.testing.assert_allclose(found.gates["one"], [1, 1])
    ratio = {kind: gates[1] / gates[0] for kind, gates in found.gates.items()}
    assert ratio["advantage"] == pytest.approx(1, rel=1e-6)
    assert ratio["contrast"] == pytest.approx(np.exp(-2 * 0.5), rel=1e-5)
    assert ratio["importance"] == pytest.approx(np.exp(-1), rel=1e-5)  # an ESS of 0.82 n needs no tempering
    assert read_accepted(round_folder, without_checks=True).unsound.tolist() == [0, 1, 1]


def test_the_table_is_printed(round_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(round_folder)]) == 0
    table = capsys.readouterr().out
    assert "| one | 50.00 [50.00, 50.00] | 4.00 [4.00, 4.00] | 1.00 |" in table
    assert main([str(round_folder.parent / "nowhere")]) == 2
