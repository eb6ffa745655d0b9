r"""What the characters of an answer mean: `½`, `√2`, `x₁`, `－５` and look-alikes of Latin letters, as plain LaTeX."""

from __future__ import annotations

import re
import unicodedata

_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎", "0123456789+-=()", strict=True))
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\ufeff\u00ad\ufe0f\u202a\u202c", ""),
        **dict.fromkeys("−－﹣˗➖", "-"),
        **dict.fromkeys("°º˚∘", r"^\circ "),
        **dict.fromkeys("€£¥", ""),
        **{
            "×": r"\times ",
            "⋅": r"\cdot ",
            "·": r"\cdot ",
            "∙": r"\cdot ",
            "÷": "/",
            "⁄": "/",
            "∕": "/",
            "٫": ".",
            "٬": ",",
        },
        **{
            "∞": r"\infty ",
            "≤": r"\le ",
            "⩽": r"\le ",
            "≥": r"\ge ",
            "⩾": r"\ge ",
            "≦": r"\le ",
            "≧": r"\ge ",
            "∖": r"\setminus ",
            "≠": r"\ne ",
            "≈": r"\approx ",
        },
        **{
            "∪": r"\cup ",
            "∩": r"\cap ",
            "∈": r"\in ",
            "±": r"\pm ",
            "∓": r"\mp ",
            "∅": r"\emptyset ",
            "⌀": r"\emptyset ",
        },
        **{
            "∧": r"\land ",
            "∨": r"\lor ",
            "′": "'",
            "″": "''",
            "’": "'",
            "⟨": r"\langle ",
            "⟩": r"\rangle ",
            "∼": r"\sim ",
        },
        **{"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}"},
        **{"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"},
        **dict(zip("АВСЕНІЈКМОРЅТХасеоріјѕху", "ABCEHIJKMOPSTXaceopijsxy", strict=True)),
        **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEZHIKMNOPTYX", strict=True)),
        **{
            chr(code): rf"\{name} "
            for name, code in {
                **{"alpha": 0x3B1, "beta": 0x3B2, "gamma": 0x3B3, "delta": 0x3B4, "epsilon": 0x3B5, "zeta": 0x3B6},
                **{
                    "eta": 0x3B7,
                    "theta": 0x3B8,
                    "kappa": 0x3BA,
                    "lambda": 0x3BB,
                    "mu": 0x3BC,
                    "xi": 0x3BE,
                    "pi": 0x3C0,
                },
                **{
                    "rho": 0x3C1,
                    "sigma": 0x3C3,
                    "tau": 0x3C4,
                    "phi": 0x3C6,
                    "chi": 0x3C7,
                    "psi": 0x3C8,
                    "omega": 0x3C9,
                },
                **{"Gamma": 0x393, "Delta": 0x394, "Theta": 0x398, "Lambda": 0x39B, "Pi": 0x3A0, "Sigma": 0x3A3},
                **{"Phi": 0x3A6, "Psi": 0x3A8, "Omega": 0x3A9},
            }.items()
        },
    }
)
_DASH = "‐‑‒–—―"
_RANGE = re.compile(rf"\s*\\?\$?[\d.,]+%?\s*[{_DASH}]\s*\\?\$?[\d.,]+%?\s*(?:[A-Za-z]+\s*)?")
_VULGAR = re.compile(r"[¼½¾⅐⅑⅒⅓-⅞↉]")
_SCRIPT = re.compile(rf"([{''.join(_RAISED)}]+)|([{''.join(_LOWERED)}]+)")
_ROOT_OF = re.compile(r"(\\sqrt(?:\[\d\])?)(?:(\d+|[A-Za-z](?![A-Za-z]))|\(([^()]*)\))")
_APOSTROPHE_GROUPS = re.compile(r"(?<![\d'])\d{1,3}(?:'\d{3})+(?![\d'])")


def plain_characters(text: str) -> str:
    """The text in ASCII LaTeX as far as its characters have one meaning.

    A dash is a minus sign, but for the one of a range such as `3-5` written with an en dash.
    """
    if not text.isascii():
        text = _VULGAR.sub(_fraction, text)
        text = _SCRIPT.sub(_script, text).translate(_SIGNS)
        if not _RANGE.fullmatch(text):
            text = re.sub(f"[{_DASH}]", "-", text)
        text = "".join(_digit(character) for character in unicodedata.normalize("NFKC", text))
        text = _ROOT_OF.sub(lambda match: f"{match[1]}{{{match[2] or match[3]}}}", text)
    return _APOSTROPHE_GROUPS.sub(lambda match: match[0].replace("'", ""), text)


def _digit(character: str) -> str:
    return str(unicodedata.decimal(character)) if character.isdecimal() and not character.isascii() else character


def _fraction(match: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match[0]).partition("⁄")
    return rf"\frac{{{top}}}{{{bottom or '1'}}}"


def _script(match: re.Match[str]) -> str:
    if match[1]:
        return f"^{{{''.join(_RAISED[character] for character in match[1])}}}"
    return f"_{{{''.join(_LOWERED[character] for character in match[2])}}}"
