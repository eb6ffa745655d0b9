"""docs/paper_index.md names options and source that exist, and every option of the filter and of the loss."""

from __future__ import annotations

import re

from docs.tools.pages import ROOT
from vpgea.config.schema import leaves

ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in (ROOT / "docs" / "paper_index.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ")
][1:]
KEYS = {key for _, keys, _ in ROWS for key in re.findall(r"`([^`]+)`", keys)}
OF_THE_LOSS = re.compile(r"distill\.(kl_|pg_|reference|clip_|dual_|mismatch_|mask_|answer_from|teacher|ema_)|filter\.")
NOT_OF_THE_METHOD = {"filter.answerability.max_new_tokens"}


def test_every_row_names_source() -> None:
    assert [element for element, _, source in ROWS if "`vpgea/" not in source] == []


def test_every_key_exists() -> None:
    assert sorted(KEYS - {key for key, _ in leaves()}) == []


def test_every_option_of_the_filter_and_of_the_loss_has_its_row() -> None:
    known = {key for key, _ in leaves() if OF_THE_LOSS.match(key)}
    assert sorted(known - KEYS - NOT_OF_THE_METHOD) == []
