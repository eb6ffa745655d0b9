r"""Boxes in a text: `\boxed{5}`, `\boxed 5`, boxes that make one answer, and a last one that was never closed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

# A box opens with \boxed{ or \fbox{ (also with the backslash doubled, as in text that was escaped once too often);
# an escaped brace is no brace. The number of backslashes is bounded, so that a run of them is scanned once.
_BOX_TOKENS = re.compile(
    r"\\(?:\\{0,2}(?:boxed|fbox)(?:\s*(?P<box>\{)"
    r"|[ \t]*(?P<bare>-?\d[\d.,/]*%?|\\frac\s?(?:\d\s?\d|\{[^{}]{0,40}\}\s?\{[^{}]{0,40}\})"
    r"|\\sqrt\s?(?:\d|\{[^{}]{0,40}\})|\\pi(?![A-Za-z]))|[ \t]+(?P<letter>[A-Za-z])(?![A-Za-z]))"
    r"|.)|\{|\}",  # each alternative begins with a character, which the search jumps to
    re.DOTALL,
)
# What may stand between two boxes that are one answer, or one list of guesses: marks, labels and hedges.
_BETWEEN = re.compile(
    r"(?:[\s$,;:.&/|*•·–—+#-]|\\[()\[\] ,;\\]|\\q?quad\b|\\text\s?\{\s?(?:and|or)\s?\}|\\(?:lor|land|vee|wedge)\b"
    r"|\b(?:and|or|either|maybe|perhaps|possibly|alternatively|else|otherwise|it|could|may|might|also|be|is|another|option|"
    r"candidate|case|guess|possibility|part|attempt|choice|alternative|second|third|fourth|answer|solution|value|number|if|that|this|fails|wrong|not|"
    r"method|approach|gives|yields|one|(?-i:Or) rather|"
    r"and finally)\b"
    r"|(?<!\w)\(?[A-Za-z0-9]{1,2}[).]|(?<!\w)\d{1,2}(?!\w)|(?<!\w)[A-Za-z](?:_\w)?\s?=)+",
    re.IGNORECASE,
)
_MAX_BETWEEN = 80  # characters that may stand between two boxes of one answer


@dataclass(frozen=True)
class Box:
    """A box; end: behind its closing brace."""

    start: int
    end: int
    content: str


@dataclass(frozen=True)
class BoxedAnswer:
    """The last boxes of a text that belong together.

    Attributes:
        start: Where the first of them opens.
        end: Behind the last of them.
        contents: Of each.
        previous: The box before them, if there is one.
    """

    start: int
    end: int
    contents: tuple[str, ...]
    previous: Box | None = None

    @property
    def text(self) -> str:
        """Joined by commas; the content itself where all have the same."""
        return self.contents[0] if len(set(self.contents)) == 1 else ", ".join(self.contents)


def boxes(text: str) -> list[tuple[int, int, int]]:
    """(start, content start, content end) of every closed box in the order in which they close. One pass."""
    return list(_scan(text).closed)


@dataclass(frozen=True)
class _Scan:
    """Spans of closed boxes and of those without braces, and where those open that are never closed."""

    closed: tuple[tuple[int, int, int], ...]
    bare: tuple[tuple[int, int, int], ...]
    opened: tuple[int, ...]


@lru_cache(maxsize=2)
def _scan(text: str) -> _Scan:
    closed: list[tuple[int, int, int]] = []
    bare: list[tuple[int, int, int]] = []
    stack: list[tuple[int, int] | None] = []
    first = text.find("box")  # braces before it close behind the boxes, or never
    while first > 0 and text[first - 1] in "\\f":
        first -= 1
    for token in _BOX_TOKENS.finditer(text, first) if first >= 0 else ():
        kind = token.lastgroup
        if kind == "box":
            stack.append((token.start(), token.end()))
        elif token[0] == "{":
            stack.append(None)
        elif token[0] == "}":
            if stack and (opened := stack.pop()) is not None:
                closed.append((*opened, token.start()))
        elif kind is not None:
            bare.append((token.start(), token.start(kind), token.end()))
    return _Scan(tuple(closed), tuple(bare), tuple(opened[0] for opened in stack if opened is not None))


def last_boxes(text: str) -> BoxedAnswer | None:
    r"""The last non-empty box with those that belong to it; None without one, or where a later one was never closed.

    Boxes with nothing but marks, labels and hedges between them are one answer: `\boxed{1} and \boxed{2}`. A box inside
    another belongs to that one's content.
    """
    scan = _scan(text)
    spans = sorted([*scan.closed, *scan.bare], key=lambda span: (span[0], -span[2]))
    outer: list[Box] = []
    reached = 0
    for start, inside, end in spans:
        if start >= reached:
            reached = end
            braced = text[inside - 1] == "{"
            content = text[inside:end].strip() if braced else text[inside:end].rstrip(".,/")
            if content:
                outer.append(Box(start, end + braced, content))
    if not outer or has_open_end(text) or _is_inside(scan.opened, outer[-1], text):
        return None
    run = [outer.pop()]
    while outer and _belong(text[outer[-1].end : run[-1].start]):
        run.append(outer.pop())
    run.reverse()
    return BoxedAnswer(run[0].start, run[-1].end, tuple(box.content for box in run), outer[-1] if outer else None)


def _is_inside(opened: tuple[int, ...], box: Box, text: str) -> bool:
    """Whether the box stands on the line of another one that was opened before it and never closed."""
    return (
        bool(opened)
        and opened[-1] < box.start <= opened[-1] + _MAX_BETWEEN
        and "\n" not in text[opened[-1] : box.start]
    )


def has_open_end(text: str) -> bool:
    """Whether the last box of a text was never closed."""
    scan = _scan(text)
    ends = [start for start, _, _ in (*scan.closed, *scan.bare)]
    return bool(scan.opened) and (not ends or scan.opened[-1] > max(ends))


def _belong(between: str) -> bool:
    return len(between) <= _MAX_BETWEEN and (not between or _BETWEEN.fullmatch(between) is not None)
