"""Whether two parsed expressions are equal: by their values, exactly where they are rational.

math-verify parses LaTeX quickly and leaves it unevaluated; what takes sympy minutes is to simplify or to expand
(towers of exponentials, high powers of sums). So nothing is simplified here. Both trees are evaluated at the same few
points, in fractions as far as these go and in floating point beyond. Two expressions of a few signs that agree at
several rational points are the same (Schwartz, 1980; Zippel, 1979). Steps and sizes are bounded by number and not by
time: the same two expressions get the same answer on every machine.
Left out on purpose: integrals, limits, functions without a name of their own. They are equal only as they stand.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

Value = Fraction | complex
_STEPS = 2_000  # operations of one evaluation
_BITS = 4_000  # of a fraction
_POINTS = 4
_NEEDED = 2  # points at which both must have a value
_FACTORIAL = 170
_FUNCTIONS: Mapping[str, Callable[[complex], complex]] = {
    **{name: getattr(cmath, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh")},
    **{"exp": cmath.exp, "sec": lambda x: 1 / cmath.cos(x), "csc": lambda x: 1 / cmath.sin(x)},
    "cot": lambda x: 1 / cmath.tan(x),
}
_FLIPPED = {"StrictLessThan": "StrictGreaterThan", "LessThan": "GreaterThan"}


class Undecided(Exception):
    """An expression that cannot be evaluated within the bounds."""


def same(a: Any, b: Any) -> bool:
    """Whether two sympy objects are equal: expressions, relations, intervals, sets, tuples, matrices."""
    try:
        return _same(a, b)
    except (Undecided, ArithmeticError, ValueError):  # no value: 1/0, a logarithm of 0, beyond floating point
        return False


def _same(a: Any, b: Any) -> bool:
    a, b = _unnamed(a, b), _unnamed(b, a)
    if a == b:
        return True
    kinds = {_kind(a), _kind(b)}
    if kinds == {"expression"}:
        return _same_values(a, b)
    if len(kinds) > 1:
        return False
    (kind,) = kinds
    if kind == "Interval":
        open_alike = (bool(a.left_open), bool(a.right_open)) == (bool(b.left_open), bool(b.right_open))
        return open_alike and _same(a.start, b.start) and _same(a.end, b.end)
    if kind == "matrix":
        return a.shape == b.shape and len(a) <= 16 and all(map(_same, a, b))
    if kind == "Tuple":
        return len(a) == len(b) and all(map(_same, a, b))
    if kind in ("FiniteSet", "Union", "And"):
        return _same_in_any_order(list(a.args), list(b.args))
    return kind == "relation" and _same_relation(a, b)


def _kind(tree: Any) -> str:
    name = type(tree).__name__
    if name in ("Interval", "FiniteSet", "Union", "Tuple", "And"):
        return name
    if getattr(tree, "is_Matrix", False):
        return "matrix"
    if getattr(tree, "is_Relational", False):
        return "relation"
    return "expression" if hasattr(type(tree), "is_number") else "other"


def _unnamed(tree: Any, other: Any) -> Any:
    """What a name stands for, "x = 5" or "x in (3, 5)", where the other side gives no name."""
    named = _is_equation(tree) and tree.lhs.is_Symbol and not _is_equation(other)
    return tree.rhs if named else tree


def _is_equation(tree: Any) -> bool:
    return type(tree).__name__ == "Equality"


def _same_in_any_order(a: list[Any], b: list[Any]) -> bool:
    if len(a) != len(b) or len(a) > 8:
        return False
    for one in a:
        partner = next((i for i, other in enumerate(b) if _same(one, other)), None)
        if partner is None:
            return False
        del b[partner]
    return True


def _same_relation(a: Any, b: Any) -> bool:
    """Of the same kind, or the one the other read from the right; the sides' differences proportional.

    For inequalities by a positive factor.
    """
    sides = []
    for tree in (a, b):
        kind = type(tree).__name__
        flipped = {right: left for left, right in _FLIPPED.items()}
        ends = (tree.rhs, tree.lhs) if kind in flipped else (tree.lhs, tree.rhs)
        sides.append((flipped.get(kind, kind), *ends))
    if sides[0][0] != sides[1][0]:
        return False
    if any(_kind(end) != "expression" for _, *ends in sides for end in ends):
        return all(_same(x, y) for x, y in zip(sides[0][1:], sides[1][1:], strict=True))
    ratios = []
    for at in _points(a, b):
        left, right = (_value(x, at, [0]) - _value(y, at, [0]) for _, x, y in sides)
        if left != 0 and right != 0:
            ratios.append(complex(left / right))
        elif left != right:
            return False
    if not ratios:
        return False
    positive = sides[0][0] in ("Equality", "Unequality") or ratios[0].real > 0
    return positive and all(cmath.isclose(ratio, ratios[0], rel_tol=1e-9) for ratio in ratios)


def _same_values(a: Any, b: Any) -> bool:
    decimal = bool(_floats(a) or _floats(b))
    seen = 0
    for at in _points(a, b):
        try:
            x, y = _value(a, at, [0]), _value(b, at, [0])
        except (ZeroDivisionError, OverflowError, ValueError):
            continue
        if not _equal(x, y, decimal):
            return False
        seen += 1
    return seen >= _NEEDED or (seen > 0 and not a.free_symbols | b.free_symbols)


def _floats(tree: Any) -> bool:
    return any(node.is_Float for node in _nodes(tree))


def _nodes(tree: Any) -> Sequence[Any]:
    found, waiting = [], [tree]
    while waiting:
        found.append(waiting.pop())
        waiting.extend(found[-1].args)
        if len(found) > _STEPS:
            raise Undecided
    return found


def _equal(x: Value, y: Value, decimal: bool) -> bool:
    if isinstance(x, Fraction) and isinstance(y, Fraction) and not decimal:
        return x == y
    x, y = complex(x), complex(y)
    if not (cmath.isfinite(x) and cmath.isfinite(y)):
        raise Undecided
    if cmath.isclose(x, y, rel_tol=1e-9, abs_tol=1e-12):
        return True
    rounded = min(abs(x), abs(y)) >= 1e-3 and abs(x - y) < 1e-6
    return decimal and rounded and round(x.real, 6) == round(y.real, 6) and round(x.imag, 6) == round(y.imag, 6)


def _points(a: Any, b: Any) -> list[dict[str, Value]]:
    """Values of all variables, of both signs, none special; one point without any where there are none."""
    names = sorted({symbol.name for symbol in a.free_symbols | b.free_symbols})
    if len(names) > 8:
        raise Undecided
    if not names:
        return [{}]
    signs = [(1, 1), (-1, 1), (1, -1), (-1, -1)][:_POINTS]
    return [
        {name: Fraction(sign[i % 2] * (97 + 31 * i + 17 * k), 71 + 13 * k) for i, name in enumerate(names)}
        for k, sign in enumerate(signs)
    ]


def _value(tree: Any, at: Mapping[str, Value], steps: list[int]) -> Value:
    """The value of an expression where the variables are as told. Raises Undecided, ArithmeticError or ValueError."""
    steps[0] += 1
    if steps[0] > _STEPS:
        raise Undecided
    name = type(tree).__name__
    if tree.is_Rational:
        return _bounded(Fraction(int(tree.p), int(tree.q)))
    if tree.is_Symbol and tree.name in at:
        return at[tree.name]
    if tree.is_Float or tree.is_NumberSymbol:
        return Fraction(float(tree)) if tree.is_Float else complex(float(tree))
    if name == "ImaginaryUnit":
        return 1j
    if name in ("Sum", "Product"):
        return _series(tree, at, steps)
    values = [_value(part, at, steps) for part in tree.args]
    if tree.is_Add:
        return _bounded(sum(values, start=Fraction(0)))
    if tree.is_Mul:
        return _bounded(math.prod(values, start=Fraction(1)))
    if tree.is_Pow:
        return _power(*values)
    if name == "UnevaluatedExpr":
        return values[0]
    if name == "log" and values:
        over = [cmath.log(complex(value)) for value in values]
        return over[0] / over[1] if len(over) == 2 else over[0]
    if name in _FUNCTIONS and len(values) == 1:
        return _FUNCTIONS[name](complex(values[0]))
    return _whole(name, values)


def _whole(name: str, values: list[Value]) -> Value:
    """Functions of real and of whole numbers."""
    if name == "Abs" and len(values) == 1:
        return abs(values[0]) if isinstance(values[0], Fraction) else complex(abs(values[0]))
    reals = [value if isinstance(value, Fraction) else Fraction(value.real) for value in values]
    if any(isinstance(value, complex) and abs(value.imag) > 1e-12 for value in values):
        raise Undecided
    if name in ("floor", "ceiling") and len(reals) == 1:
        return Fraction(math.floor(reals[0]) if name == "floor" else math.ceil(reals[0]))
    if name in ("Min", "Max") and reals:
        return min(reals) if name == "Min" else max(reals)
    if any(value.denominator != 1 or not 0 <= value <= _FACTORIAL for value in reals):
        raise Undecided
    if name == "factorial" and len(reals) == 1:
        return Fraction(math.factorial(int(reals[0])))
    if name == "binomial" and len(reals) == 2:
        return Fraction(math.comb(int(reals[0]), int(reals[1])))
    raise Undecided


def _series(tree: Any, at: Mapping[str, Value], steps: list[int]) -> Value:
    """A finite sum or product over one whole variable."""
    (variable, *ends), *more = tree.limits
    low, high = (_value(end, at, steps) for end in ends)
    if more or not all(isinstance(end, Fraction) and end.denominator == 1 for end in (low, high)):
        raise Undecided
    assert isinstance(low, Fraction) and isinstance(high, Fraction)
    if high - low > _STEPS:
        raise Undecided
    places = range(int(low), int(high) + 1)
    values = [_value(tree.function, {**at, variable.name: Fraction(i)}, steps) for i in places]
    added = type(tree).__name__ == "Sum"
    return _bounded(sum(values, start=Fraction(0)) if added else math.prod(values, start=Fraction(1)))


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(base) not in (0, 1) and abs(exponent) * bits > _BITS:
            raise Undecided
        if abs(base) == 1:
            return Fraction(1) if base == 1 or exponent % 2 == 0 else Fraction(-1)
        return base ** int(exponent)
    return complex(base) ** complex(exponent)


def _bounded(value: Value) -> Value:
    if isinstance(value, Fraction) and max(value.numerator.bit_length(), value.denominator.bit_length()) > _BITS:
        raise Undecided
    return value
