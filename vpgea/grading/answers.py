"""Where a response states its final answer. Everything here is linear in the length of the (untrusted) text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from vpgea.grading.boxes import BoxedAnswer, has_open_end, last_boxes
from vpgea.grading.rivals import MAX_BETWEEN, alternatives, are_alternatives, differ, ends_sentence, goes_on_working
from vpgea.grading.statements import MAX_STATEMENT, read_statement

Source = Literal["box", "tag", "marker", "whole"]

_THOUGHT = "think|thinking|thoughts?|reasoning|reason|reflection|scratchpad|analysis|seed:think"
_END_OF_THOUGHT = re.compile(
    rf"</(?:{_THOUGHT})>|<\|end_of_thought\|>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
_BEGIN_OF_THOUGHT = re.compile(
    rf"<(?:{_THOUGHT})>|<\|begin_of_thought\|>|\[THINK\]|◁think▷|<\|channel\|>analysis<\|message\|>", re.IGNORECASE
)
# What these begin with: most texts have none of it, which is seen in a fraction of the time.
_END_SIGNS, _BEGIN_SIGNS = ("</", "<|", "[/", "◁/"), ("<", "[T", "[t", "◁")
_SPECIAL_TOKEN = re.compile(r"<[|｜][^<>|｜\n]{1,40}[|｜]>")
_TAG = re.compile(r"<answer>((?:(?!</?answer>).){0,2000})</answer>", re.DOTALL | re.IGNORECASE)
_MARKER = re.compile(
    r"""(?:\#\#\#\#(?!\#)(?![ \t]*(?:final[ ])?answer)
    | ^[ \t*_]{0,8}A[ \t]?:(?!\w)
    | \banswer[*_]{0,3}(?:[ \t]{1,3}(?:is|would[ ]be|will[ ]be)\b|[ \t]{0,3}[:=：])
    | ^[\#*_ \t]{0,8}(?:the[ ])?(?:final[ ])?answer(?:[*_: \t]{0,6}$|[ \t]{1,3}(?=\$|\\\())
    | 答案(?:是|为|為|等于|[:：])|答[:：]|答え[はが:：]|정답[은는이:：]|답[은는이:：]
    | \b(?:respuesta|réponse|risposta|resposta|antwort)(?:[ ][\wé]{1,12}){0,2}?
      (?:[ ](?:es|est|è|é|ist|lautet)(?!\w)|[ ]?[:：])
    | \bответ[ ]?(?:[:：—-]|равен\b)|\bđáp[ ](?:án|số)[ ]?(?:là\b|[:：])
    )[ \t*_:：]{0,8}""",
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)
# No line has a marker without one of these, in lower case.
_MARKER_WORDS = (
    *("answer", "####", "a:", "a :", "a\t:", "答", "답", "respuesta", "réponse", "risposta", "resposta", "antwort"),
    *("\u043e\u0442\u0432\u0435\u0442", "đáp"),  # Russian, whose letters look like Latin ones
)
# What stands before a statement that makes none of it: the words between the first and it only join them.
_JOINTS = (
    r"(?:[ \t]+(?:that|the|an?|my|our|its?|this|is|was|be|were|answers?|result|value|final|correct|right|true|real|"
    r"would|to|equals?|first|likely|possible|think|believe|it['’]s|sure|certain|"
    r"attempts?|solutions?|approach|method|gave|gives?|yields?|got|get|we|i))*"
)
# Each with its endings; a text without any of the beginnings is not looked at further.
_NEGATIONS = {
    **{"not": "", "never": "", "cannot": "", "suppos": "e|ing", "assum": "e|ing", "imagine": "", "pretend": ""},
    **{"recall": "", "remember": "", "thought": "", "guess": "|ed", "wrong": "", "incorrect": "", "mistaken": ""},
    **{"earlier": "", "false": "", "unsure": "", "doubt": "", "deny": ""},
}
_NEGATED = rf"\b(?:{'|'.join(f'{word}(?:{endings})' for word, endings in _NEGATIONS.items())})\b|n['’]t\b"
_NOT_MEANT = re.compile(
    rf"(?:(?:{_NEGATED}){_JOINTS}|\b(?:greater|less|more|fewer|larger|smaller|other) than"
    r"|\b(?:any(?:thing)?|every(?:thing)?|all|none|nothing) (?:but|except)"
    r"|~~|<(?:del|s|strike)>)"
    r"[ \t:$\\(\[*_]*$",
    re.IGNORECASE,
)
_NOT_MEANT_SIGNS = (*_NEGATIONS, "n't", "n’t", " than", " but", " except", "~~", "<")
_DOUBTS = (
    *("if", "whether", "other", "another", "initial", "naive", "tempting", "say", "maybe", "perhaps", "possibly"),
    *("check", "verify", "confirm"),
)
_DOUBTED = rf"{_NEGATED}|\b(?:{'|'.join(_DOUBTS)})\b"
_NOT_MEANT_MARKER = re.compile(
    rf"(?:{_DOUBTED}|(?<!\bI )(?<!\bwe )\b(?:says|said|claims|claimed)\b){_JOINTS}[ \t*_]*$"
    r"|\bno(?: (?:correct|right|possible|final))?[ ]$",
    re.IGNORECASE,
)
_NOT_MEANT_MARKER_SIGNS = (*_NEGATIONS, *_DOUBTS, "n't", "n’t", "said", "claim", "no ")
_BEFORE = 80  # characters before a statement that are read for this
_IF_NOT = re.compile(
    r"\b(?:if|unless) (?:that|this|it)(?:['’]s| is| was)? ?(?:not\b|n['’]t\b|wrong|incorrect|right|correct)",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"(?:\A|[.!?\n])[\s$)*_\\\]]{0,6}(?:wait(?:[,.!…—-]| (?:that|this|no|i|it|actually)\b|$)|(?:hmm|edit|sorry|oops)\b"
    r"|on second thoughts?\b|correction\b|(?:actually,? )?no\b[,.:!]"
    r"|actually,? (?:scrap|ignore|that))"
    r"|[—–-] ?no\b|\b(?:scrap (?:that|this|it)|(?:ignore|disregard) (?:that|this|my|the)|i made an? (?:mistake|error)"
    r"|let me (?:reconsider|redo))\b"
    # What is called wrong is the answer: by its name, or as what the first sentence behind it begins with.
    r"|(?:\b(?:my|this|that|the|above|previous|final|boxed) answer"
    r"|\A[\s$)*_\\\].,;:!—–-]{0,8}(?:[A-Za-z'’]{1,12}[,:]? ){0,4}?(?:that|this|which|it|answer))"
    r"(?:['’]s|\s+is|\s+was)\s+(?:\w{2,12}ly )?(?:wrong|incorrect|false|not (?:correct|right|true|the answer|it))\b"
    r"|\A[\s$)*_\\\]]{0,6}[(\[](?:(?:this|that|which) (?:is|was) )?"
    r"(?:wrong|incorrect|false|not (?:correct|right|true))\b"
    rf"|{_IF_NOT.pattern}|\A[\s$)*_\\\]]{{0,6}}or (?:more|less|fewer|greater)\b"
    r"|\bbut (?:actually,? )?(?:it|the answer|the value) (?:is|should be|must be|was)\s+[$\\(]*[\d\\+-]"
    r"|\A[\s$)*_\\\]]{0,6}(?:(?:is|was|are|would be|can)(?:\s+not\b|n['’]t\b|not\b|\s+(?:wrong|incorrect|false)\b)|\?)",
    re.IGNORECASE,
)
# Between two statements that are one list of guesses: ends of sentences, and words that only lead to the next.
_NEXT = re.compile(
    r"(?:[\s.,;$*_]|\b(?:and|or|the|my|also|maybe|perhaps|possibly|either|another|final|correct)\b|####|A:)*", re.I
)
_MAX_NEXT = 60
_MAX_TAG = 2100  # characters of a tag and what stands between two
_FIRST = re.compile(
    r"\b(?:first|initial(?:ly)?|previous(?:ly)?|earlier|original(?:ly)?)\b[^.!?\n]{0,40}$", re.IGNORECASE
)
_NUMBER = re.compile(r"[$\\( ]{0,4}(-?\d[\d,]{0,20}(?:\.\d{1,20})?)(?![\d/^{])")
# What a later sentence says the answer is.
_LATER = re.compile(
    r"(?:^|\n)[ *_]*(?:(?:final|result)[ ]?:|(?:therefore|thus|hence|so),?)"
    r"[ $*]{0,3}(?:[a-z] ?= ?)?(-?\d[\d,]{0,20}(?:\.\d{1,20})?)"
    r"[$* ]{0,3}(?:\.?[ ]*(?:$|\n)| is the (?:final |correct |right )?answer\b)",
    re.IGNORECASE,
)
_MORE_IN_BRACES = re.compile(r"\{\s*[^\s{}]")  # `\boxed{5}{4}`
_MAX_MARKERS = 50  # of the last ones; a text with more that say nothing states nothing
_VALUE = re.compile(r"[$*_(\[{\\+−-]*\s*(?:\d|\\|[A-Za-z](?![A-Za-z'’])(?!\s+[a-z])|[√π½])")

MAX_WHOLE = 200  # characters; a longer line is prose, not an answer


@dataclass(frozen=True)
class Answer:
    """A stated answer.

    Attributes:
        text: What stands in the place of the answer, raw.
        source: Which place that is.
        repeated: Where the same was put into several boxes, all of them: `4, 4`; else empty.
        rivals: What else is stated as the answer: last in a place of another kind, or as an alternative to this one.
    """

    text: str
    source: Source
    repeated: str = ""
    rivals: tuple[str, ...] = ()

    def is_one_of_several(self, question: str) -> bool:
        """Whether one of its rivals is certainly another value, so that nothing was decided."""
        return any(differ(self.text, rival, question) for rival in self.rivals)


def after_thinking(text: str) -> str:
    """What follows the last end of thinking and stands before another begin, without tokens such as `<|im_end|>`."""
    ends = list(_END_OF_THOUGHT.finditer(text)) if _holds_any(text, _END_SIGNS) else []
    text = text[ends[-1].end() :] if ends else text
    if _holds_any(text, _BEGIN_SIGNS) and (begin := _BEGIN_OF_THOUGHT.search(text)):
        before, _, tagged = text.rpartition("<answer>")  # which ends thinking, too
        text = f"<answer>{tagged}" if len(before) > begin.start() else text[: begin.start()]
    return _SPECIAL_TOKEN.sub(" ", text) if "<" in text else text  # `1<|x|>2` is not 12


def find_answer(response: str) -> Answer | None:
    r"""The final answer of a response, or None.

    It is the last of: boxes, `<answer>…</answer>` (tag) and what follows `####`, `A:` at a line's start, `answer is`
    and the like (marker). Behind a box a marker counts where a value follows it. What is denied, supposed, asked or
    taken back is no answer, and none is read where the last box was never closed. Without any of them it is the
    response itself where that is one line of at most MAX_WHOLE characters (whole).
    """
    text = after_thinking(response)
    boxed = last_boxes(text)
    if has_open_end(text):
        return None
    stated = [one for one in (_boxed(boxed, text), _tagged(text), _marked(text, boxed)) if one is not None]
    if stated:
        last = max(stated, key=lambda one: one[0])
        _, end, answer = last
        behind = text[end:]
        if _TAKEN_BACK.search(behind) or _said_otherwise(answer.text, behind):
            return None
        rivals = tuple(_rivals(text, last, stated, boxed))
        return replace(answer, rivals=rivals) if rivals else answer
    whole = text.strip()
    if whole and "\n" not in whole and len(whole) <= MAX_WHOLE and boxed is None and not _MARKER.search(text):
        return Answer(whole, "whole")
    return None


def _number(text: str) -> str | None:
    """The number that a statement begins with, as far as it is certain which."""
    found = _NUMBER.match(text.strip())
    digits = found[1].replace(",", "") if found else None
    return digits.rstrip("0").rstrip(".") if digits and "." in digits else digits


def _said_otherwise(answer: str, behind: str) -> bool:
    """Whether a line behind a plain number says that another one is the answer."""
    stated = _number(answer)
    return stated is not None and any(_number(later[1]) != stated for later in _LATER.finditer(behind))


def _are_guesses(one: str, other: str, between: str) -> bool:
    """Whether two statements side by side state two numbers, so that they are a list of guesses."""
    first, second = _number(one), _number(other)
    joined = len(between) <= _MAX_NEXT and _NEXT.fullmatch(between) is not None
    return joined and first is not None and second is not None and first != second


_Stated = tuple[int, int, Answer]  # where it begins and ends


def _boxed(found: BoxedAnswer | None, text: str) -> _Stated | None:
    if found is None or _ends_in(_NOT_MEANT, _NOT_MEANT_SIGNS, text, found.start):
        return None
    repeated = ", ".join(found.contents) if len(found.contents) > 1 and len(set(found.contents)) == 1 else ""
    if _MORE_IN_BRACES.match(text, found.end, found.end + 8):
        return None
    return found.start, found.end, Answer(found.text, "box", repeated)


def _rivals(text: str, last: _Stated, stated: Sequence[_Stated], boxed: BoxedAnswer | None) -> Iterator[str]:
    """What else a text states as its answer, where nothing between them takes it back."""
    start, end, answer = last
    shown = text.find(answer.text, end, end + MAX_STATEMENT) if answer.source == "marker" else -1
    yield from alternatives(text, start, end if shown < 0 else shown + len(answer.text))
    for other in stated:
        if other[2].source == answer.source or other[0] >= start:
            continue
        between, before = text[other[1] : start], text[max(0, other[0] - _BEFORE) : other[0]]
        part = other[2].source == "marker" and not ends_sentence(between)  # `the answer is 2 times \boxed{3}`
        passed = part or goes_on_working(between) or _TAKEN_BACK.search(between) or _FIRST.search(before)
        if not passed:
            yield other[2].text
    for ended, value in _before(text, last, boxed):
        between = text[ended:start]
        if are_alternatives(between) and (_IF_NOT.search(between) or not _TAKEN_BACK.search(between)):
            yield value


def _before(text: str, stated: _Stated, boxed: BoxedAnswer | None) -> Iterator[tuple[int, str]]:
    """Where the statement of the same kind before one ends, and its value."""
    start, _, answer = stated
    if answer.source == "box" and boxed is not None and boxed.previous is not None:
        yield boxed.previous.end, boxed.previous.content
    if answer.source == "tag" and (tags := list(_TAG.finditer(text, max(0, start - _MAX_TAG), start))):
        yield tags[-1].end(), tags[-1][1]
    if answer.source == "marker":
        last = next(_markers(text, max(0, start - 2 * MAX_BETWEEN), start), None)
        if last and (number := _NUMBER.match(text, last.end(), start)):
            yield number.end(), number[1]


def _tagged(text: str) -> _Stated | None:
    """The last `<answer>` that states something, with those before it where they are one list of guesses."""
    last, guesses = None, list[str]()
    for tag in _TAG.finditer(text) if "</" in text else ():
        goes_on = last is not None and _are_guesses(last[1], tag[1], text[last.end() : tag.start()])
        guesses = [*guesses[-8:], tag[1].strip()] if goes_on else [tag[1].strip()]
        last = tag
    return (last.start(), last.end(), Answer(", ".join(guesses), "tag")) if last and guesses[-1] else None


def _holds_any(text: str, signs: Sequence[str]) -> bool:
    for sign in signs:  # noqa: SIM110 - half the time of `any` over a generator, and asked many times a row
        if sign in text:
            return True
    return False


def _ends_in(pattern: re.Pattern[str], signs: Sequence[str], text: str, end: int) -> bool:
    """Whether what stands before `end` matches a pattern that needs one of the signs, in lower case."""
    before = text[max(0, end - _BEFORE) : end]
    return _holds_any(before.casefold(), signs) and pattern.search(before) is not None


def _may_hold_marker(text: str) -> bool:
    return _holds_any(text.casefold(), _MARKER_WORDS)


def _markers(text: str, start: int, end: int) -> Iterator[re.Match[str]]:
    """The markers in [start, end), the last one first. Most texts and most lines have none, which is seen at once."""
    if not _may_hold_marker(text[start:end]):
        return
    while start < end:
        line = max(text.rfind("\n", start, end) + 1, start)
        if _may_hold_marker(text[line:end]):
            yield from reversed(list(_MARKER.finditer(text, line, end)))
        end = line - 1


def _marked(text: str, boxed: BoxedAnswer | None) -> _Stated | None:
    """The last marker that states something; those before it count no more."""
    for marker in islice(_markers(text, 0, len(text)), _MAX_MARKERS):
        if _ends_in(_NOT_MEANT_MARKER, _NOT_MEANT_MARKER_SIGNS, text, marker.start()):
            continue
        statement = read_statement(text[marker.end() : marker.end() + MAX_STATEMENT])
        behind_box = boxed is not None and marker.start() > boxed.start
        if statement is None or (behind_box and not _VALUE.match(statement)):
            continue
        if not statement:
            return None
        before = _stated_just_before(text, marker.start(), statement)
        return marker.start(), marker.end(), Answer(", ".join([*before, statement]), "marker")
    return None


def _stated_just_before(text: str, end: int, statement: str) -> list[str]:
    """The number that another marker states right before one at `end`, where it is another one."""
    start = max(0, end - 2 * _MAX_NEXT)
    for marker in _markers(text, start, end):
        number = _NUMBER.match(text, marker.end(), end)
        if number and _are_guesses(number[0], statement, text[number.end() : end]):
            return [number[1]]
        break
    return []
