"""A completion is cut where its tokens meet, whatever a tokenizer makes of one token alone."""

from __future__ import annotations

import pytest

from vpgea.inspection.samples import Strings, pieces_of


def strings(*words: str) -> Strings:
    return Strings(lambda ids: "".join(words[number] for number in ids), lambda number: words[number])


@pytest.mark.parametrize(
    ("words", "text", "pieces"),
    [
        (("82", " add", " 5"), "82 add 5", ["82", " add", " 5"]),
        (("82", "add", "5"), "82 add 5", ["82", " add", " 5"]),  # the space is in no token alone
        (("a", "\ufffd", "\ufffd", "b"), "aéb", ["a", "", "", "éb"]),  # a character in two tokens
        (("a", "\ufffd", "\ufffd"), "aé", ["a", "", "é"]),
        ((), "", []),
    ],
)
def test_pieces_joined_are_the_text(words: tuple[str, ...], text: str, pieces: list[str]) -> None:
    found = pieces_of(strings(*words), list(range(len(words))), text)
    assert found == pieces
    assert "".join(found) == text
