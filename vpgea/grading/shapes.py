"""The shape of a formula apart from its notation (`x*x+5x` is `5x+x^2`), and what a formula leaves undone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from vpgea.grading.expressions import Tree

_SUMS = ("add", "sub")


def shape(tree: Tree) -> tuple[int, str]:
    """(sign, spelling) of a tree: terms sorted, factors in order, signs drawn out."""
    kind, parts = tree[0], tree[1:]
    if kind in (*_SUMS, "neg"):
        return _sum(signed_terms(tree))
    if kind in ("mul", "div"):
        (one, left), (other, right) = shape(parts[0]), shape(parts[1])
        if right == "num:1":
            return one * other, left
        return one * other, right if kind == "mul" and left == "num:1" else f"{kind}[{left}][{right}]"
    shapes = [shape(part) if isinstance(part, tuple) else (1, str(part)) for part in parts]
    inside = ",".join(name if sign > 0 else f"-{name}" for sign, name in shapes)
    return 1, f"{kind}:{inside}"


def signed_terms(tree: Tree) -> list[tuple[int, str]]:
    """(sign, shape) of each term of a sum."""
    return [(sign * own, name) for sign, term in _terms(tree) for own, name in [shape(term)]]


def loose_shape(tree: Tree) -> tuple[int, str]:
    r"""(sign, spelling) of a tree in any notation: factors sorted too, `x*x` as `x^2`, roots and quotients as powers.

    Numbers are not worked out: `6/8` is not `3/4`, `2\sqrt2` not `\sqrt8`.
    """
    if tree[0] in (*_SUMS, "neg"):
        return _sum([(sign * own, name) for sign, term in _terms(tree) for own, name in [loose_shape(term)]])
    sign, powers = _powers(tree)
    factors = [name if power == 1 else f"{name}^{power}" for name, power in sorted(powers)]
    return sign, "*".join(factors) or "num:1"


def _sum(terms: list[tuple[int, str]]) -> tuple[int, str]:
    terms = sorted(terms, key=lambda term: term[1])
    terms = [term for term in terms if term[1] != "num:0"] or terms[:1]
    sign = terms[0][0]
    inside = "+".join(f"({sign * each}){name}" for each, name in terms)
    return sign, inside if len(terms) > 1 else terms[0][1]


def _terms(tree: Tree) -> Iterator[tuple[int, Tree]]:
    if tree[0] == "neg":
        yield from ((-sign, term) for sign, term in _terms(tree[1]))
    elif tree[0] in _SUMS:
        yield from _terms(tree[1])
        yield from ((sign if tree[0] == "add" else -sign, term) for sign, term in _terms(tree[2]))
    else:
        yield 1, tree


def _powers(tree: Tree) -> tuple[int, list[tuple[str, Fraction]]]:
    """Sign and (base, exponent) of each factor; those of one base that is no number are joined where they may be."""
    sign, found = 1, list[tuple[str, Fraction]]()
    joined: Counter[str] = Counter()
    for base, power in _factors(tree, Fraction(1)):
        own, name = (1, f"num:{base[1]}") if base[0] == "num" else _base(base)
        if power.denominator == 1:
            sign *= own if power % 2 else 1
        elif own < 0:
            name = f"-({name})"
        if name == "num:1":
            continue
        if power > 0 and power.denominator == 1 and base[0] != "num":
            joined[name] += int(power)
        else:
            found.append((name, power))
    return sign, [*found, *((name, Fraction(power)) for name, power in joined.items())]


def _base(tree: Tree) -> tuple[int, str]:
    if tree[0] in (*_SUMS, "neg"):
        return loose_shape(tree)
    inside = ",".join(str(loose_shape(part)) if isinstance(part, tuple) else str(part) for part in tree[1:])
    return 1, f"{tree[0]}:{inside}"


def _factors(tree: Tree, power: Fraction) -> Iterator[tuple[Tree, Fraction]]:
    kind = tree[0]
    if kind in ("mul", "div") and (power.denominator == 1):
        yield from _factors(tree[1], power)
        yield from _factors(tree[2], power if kind == "mul" else -power)
    elif kind == "div" and tree[1] == ("num", "1"):
        yield from _factors(tree[2], -power)
    elif kind in ("pow", "root"):
        base, exponent = (tree[1], tree[2]) if kind == "pow" else (tree[2], tree[1])
        value = constant(exponent)
        if value is None or (kind == "root" and value == 0):
            yield tree, power
        else:
            yield from _factors(base, power * (value if kind == "pow" else 1 / value))
    else:
        yield tree, power


def constant(tree: Tree) -> Fraction | None:
    """The value of a fraction of plain numbers; None for what is none."""
    if tree[0] == "num":
        return Fraction(tree[1])
    if tree[0] == "neg":
        value = constant(tree[1])
        return None if value is None else -value
    if tree[0] == "div":
        top, bottom = constant(tree[1]), constant(tree[2])
        return top / bottom if top is not None and bottom else None
    return None


def undone(tree: Tree) -> frozenset[str]:
    r"""What a formula leaves to be done: `3+5`, `36\cdot2`, `\sqrt{72}`, `1/\sqrt2`, `\frac{(x-1)(x+1)}{x-1}`."""
    marks = {mark for part in tree[1:] if isinstance(part, tuple) for mark in undone(part)}
    if tree[0] in _SUMS and sum(term[0] == "num" for _, term in _terms(tree)) > 1:
        marks.add("a sum of numbers")
    factors = list(_factors(tree, Fraction(1))) if tree[0] in ("mul", "div", "pow", "root") else []
    whole = [base for base, power in factors if base[0] == "num" and base[1] != "1" and power == 1]
    if len(whole) > 1:
        marks.add("a product of numbers")
    for base, power in factors:
        root = power.denominator == 2
        if root and base[0] == "num" and base[1].isdigit() and _has_square(int(base[1])):
            marks.add("a square below a root")
        if root and base[0] == "num" and abs(power) > 1:
            marks.add("a square below a root")
        if root and base[0] in ("mul", "div", "pow"):
            marks.add("an operation below a root")
        if root and power < 0:
            marks.add("a root below a line")
        if base[0] == "var" and power < 0:
            marks.add("a letter below a line")
    above, below = ({str(base) for base, power in factors if base[0] != "num" and power * way > 0} for way in (1, -1))
    if above & below:
        marks.add("a factor to be cancelled")
    return frozenset(marks)


def _has_square(number: int) -> bool:
    return any(number % (root * root) == 0 for root in range(2, min(math.isqrt(number), 10_000) + 1))


def is_sum(tree: Tree) -> bool:
    """Whether a formula is a sum at its outermost."""
    return is_sum(tree[1]) if tree[0] == "neg" else tree[0] in _SUMS


def is_factored(tree: Tree) -> bool:
    """Whether a formula is a product of more than numbers and one sum: `(x+1)(x+2)`, `(x+1)^2`, not `2(x^2+1)`."""
    factors = [(base, power) for base, power in _factors(tree, Fraction(1)) if constant(base) is None]
    return not is_sum(tree) and (len(factors) != 1 or not is_sum(factors[0][0]) or factors[0][1] != 1)


def multiplies_sums(tree: Tree) -> bool:
    """Whether a product or power in a formula has a sum as a factor."""
    here = tree[0] == "mul" or (tree[0] == "pow" and constant(tree[2]) is not None)
    return (here and any(isinstance(part, tuple) and is_sum(part) for part in tree[1:])) or any(
        multiplies_sums(part) for part in tree[1:] if isinstance(part, tuple)
    )
