"""The folder that examples/smollm2 writes: its tokenizer cuts as the GGUF file says."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from examples.smollm2.convert import split_digits
from tests.support.tiny import make_tokenizer


def test_digits_are_cut_off_one_by_one_before_anything_else(tmp_path: Path) -> None:
    """GPT-2's rule keeps the last of several spaces with the number behind it, and numbers whole."""
    file = tmp_path / "tokenizer.json"
    make_tokenizer().save_pretrained(tmp_path)
    before = Tokenizer.from_file(str(file)).pre_tokenizer.pre_tokenize_str("x  42")
    assert [piece for piece, _ in before] == ["x", "Ġ", "Ġ42"]
    split_digits(file)
    after = Tokenizer.from_file(str(file))
    assert [piece for piece, _ in after.pre_tokenizer.pre_tokenize_str("x  42")] == ["x", "ĠĠ", "4", "2"]
    assert after.decode(after.encode("x  42").ids) == "x  42"
