r"""Signs of currencies and degrees beside a plain number, as the words that they stand for: `\$5` is `5 dollars`."""

from __future__ import annotations

import re

_CURRENCIES = {
    **{"$": "dollars", "textdollar": "dollars", "€": "euros", "euro": "euros", "texteuro": "euros"},
    **{"£": "pounds", "pounds": "pounds", "textsterling": "pounds", "¥": "yen", "yen": "yen", "₹": "rupees"},
    **{"¢": "cents", "cent": "cents", "textcent": "cents"},
}
_SPACE = r"(?:\s|~|\\[,;:! ]|\{\})*"
_NUMBER = r"[-−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+|\\[dt]?frac ?\{\d+\} ?\{\d+\}|\d+/\d+)"
_SIGN = (
    rf"(?:US|\\(?:text|mathrm|mbox) ?\{{)?{_SPACE}\\?([$€£¥₹¢]|(?<=\\)(?:textdollar|textsterling|texteuro|textcent"
    rf"|euro|pounds|yen|cent)(?![A-Za-z])){_SPACE}\}}?"
)
_BEFORE = re.compile(rf"(-?){_SPACE}{_SIGN}{_SPACE}({_NUMBER})")
_BEHIND = re.compile(rf"({_NUMBER}){_SPACE}{_SIGN}")
_SCALE = rf"(?:\\(?:text|mathrm|rm) ?\{{? ?)?{_SPACE}([CF]|Celsius|Fahrenheit)\}}{{0,2}}"
_DEGREES = re.compile(
    rf"({_NUMBER}){_SPACE}(?:(?:\^ ?)?\{{?(?:\^ ?\{{?)?(?:\\text ?\{{)?{_SPACE}"
    r"(?:\\circ|[°º˚]|\\?(?:text)?deg(?:rees?)?\.?)"
    rf"{_SPACE}\}}{{0,2}}{_SPACE}(?:{_SCALE})?|([℃℉]))"
)
_WRAPPED = re.compile(
    r"\$([^$]*(?:\\\$[^$]*)*)(?<!\\)\$|\\\((.*)\\\)|\\(?:text|mathrm|mbox) ?\{(.*)\}|\{(.*)\}", re.DOTALL
)
_NAME = re.compile(r"\s*\\?[A-Za-z]{1,10}(?:_\w)?\s*=\s*(?=[^=]+$)")
_MAX_LENGTH = 100  # characters; a number with its sign is shorter


def spell_signs(text: str) -> str:
    r"""`5\text{ dollars}` of `\$5`, `20\text{ degrees C}` of `20^\circ C`; any other text as it is."""
    if len(text) > _MAX_LENGTH:
        return text
    named = _NAME.match(text)
    name, text = (named[0], text[named.end() :]) if named else ("", text)
    return name + _spelled(text)


def _spelled(text: str) -> str:
    inside = text.strip().rstrip(".").strip().removeprefix("+")
    while (wrapped := _WRAPPED.fullmatch(inside)) and (within := next(filter(None, wrapped.groups()), "")):
        inside = within.strip()
    if before := _BEFORE.fullmatch(inside):
        return rf"{before[1]}{before[3]}\text{{ {_CURRENCIES[before[2]]}}}"
    if behind := _BEHIND.fullmatch(inside):
        return rf"{behind[1]}\text{{ {_CURRENCIES[behind[2]]}}}"
    if degrees := _DEGREES.fullmatch(inside):
        scale = (degrees[2] or {"℃": "C", "℉": "F"}.get(degrees[3], ""))[:1]
        return rf"{degrees[1]}\text{{ degrees {scale}}}"
    return text
