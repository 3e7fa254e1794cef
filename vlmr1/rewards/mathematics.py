r"""Whether two answers are equal as mathematics.

Strings, then numbers, then math-verify, then the string normalisation of the MATH benchmark's own scorer. math-verify
can take minutes on a short hostile expression (towers of powers, deep brackets), so only expressions that it is known
to be quick with are put to it; the rest are compared by the other three.
"""

from __future__ import annotations

import logging
import math
import re
from functools import lru_cache

from vlmr1.answers.numbers import boxed, read_number
from vlmr1.answers.words import plain

LONGEST = 200  # characters of an expression that is put to math-verify
_DEEPEST = 4  # brackets within brackets
_TOWER = re.compile(r"\^\s*+\{?[^{}^\s]{0,20}\^|\^\s*+\{?\s*+-?\d{3}|\*\*|!|\d{16}|\^\s*+\{?[^{}]{0,20}\{[^{}]*\^")
_COMMANDS = re.compile(r"\\[A-Za-z]+")
_FAMILIAR = re.compile(  # the commands math-verify is put to
    r"(?:[dt]?frac|sqrt|pi|infty|cdot|times|div|pm|leq?|geq?|lt|gt|neq?|approx|sin|cos|tan|log|ln|exp|text|mathrm|mathbf"
    r"|left|right|circ|degree|alpha|beta|gamma|theta|phi|lambda|cup|cap|in|boxed|quad|angle)"
)
_OPERATORS = re.compile(r"[-+*/=^,;]|\\[a-z]+")
_MOST_OPERATORS = 16


@lru_cache(maxsize=8192)
def equal(said: str, truth: str) -> tuple[bool, str]:
    """(whether an answer equals the truth, by what). Both as they stand in the answer; \\boxed{} and $ are allowed."""
    if plain(said) == plain(truth):
        return True, "the same text"
    a, b = read_number(said)[0], read_number(truth)[0]
    if a is not None and b is not None:
        if a.unit and b.unit and not same_unit(a.unit, b.unit):
            return False, f"{a.unit} where {b.unit} is right"
        if same_number(a.value, b.value) or percent_of(a.value, a.unit, b.value, b.unit):
            return True, "the same number"
        return False, f"{a.value:g} where {b.value:g} is right"
    if quick(said) and quick(truth) and _verified(said, truth):
        return True, "equal by math-verify"
    inside = boxed(said)
    if normalised(said if inside is None else inside) == normalised(boxed(truth) or truth):
        return True, "the same once written alike"
    return False, "not equal"


def same_number(a: float, b: float) -> bool:
    """Equal to nine digits, or to six decimals where that is at least three digits, as math-verify rounds."""
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (
        min(abs(a), abs(b)) >= 1e-3 and round(a, 6) == round(b, 6)
    )


def percent_of(a: float, unit_a: str, b: float, unit_b: str) -> bool:
    """Whether one is a percentage and the other the same share written bare: 50 % and 0.5."""
    if unit_a == "%" and unit_b == "":
        return same_number(a / 100, b)
    return unit_b == "%" and unit_a == "" and same_number(a, b / 100)


def same_unit(a: str, b: str) -> bool:
    """Units as written, case and plural aside ("cm" and "CM", "apple" and "apples")."""
    a, b = (unit.lower().replace(" ", "").replace("^", "").replace("{", "").replace("}", "") for unit in (a, b))
    return a == b or a.removesuffix("s") == b.removesuffix("s")


def quick(text: str) -> bool:
    """Whether math-verify is sure to be done with the text in a moment."""
    if len(text) > LONGEST or not text.isprintable() or _TOWER.search(text):
        return False
    if len(_OPERATORS.findall(text)) > _MOST_OPERATORS or not all(
        _FAMILIAR.fullmatch(command[1:]) for command in _COMMANDS.findall(text)
    ):
        return False
    depth = deepest = 0
    for sign in text:
        depth += (sign in "({[") - (sign in ")}]")
        deepest = max(deepest, depth)
    return depth == 0 and deepest <= _DEEPEST


def _verified(said: str, truth: str) -> bool:
    """math-verify's word: both parsed as LaTeX if they look it, else as expressions in running text."""
    import math_verify  # sympy behind it takes a third of a second to import

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    parsed = [math_verify.parse(_marked(text), parsing_timeout=None) for text in (truth, said)]
    return bool(math_verify.verify(parsed[0], parsed[1], timeout_seconds=None))


def _marked(text: str) -> str:
    """LaTeX in dollar signs, where it stands bare: math-verify looks for LaTeX only there."""
    return f"${text}$" if "\\" in text and "$" not in text and r"\boxed" not in text else text


_SQRT = re.compile(r"\\sqrt\s*+(\w)")
_FRAC = re.compile(r"\\frac\s*+(?:\{([^{}]{0,60}+)\}|(\w))\s*+(?:\{([^{}]{0,60}+)\}|(\w))")
_RATIO = re.compile(r"(-?\d{1,20})/(\d{1,20})")
_UNIT_TEXT = re.compile(r"\\text\{\s[^{}]{0,60}+\}\s*+$")
_NAMED = re.compile(r"[A-Za-z]{1,2}\s*+=\s*+")


def normalised(text: str) -> str:
    r"""A string as the MATH benchmark (arXiv 2103.03874) writes it.

    No spaces, dollars, degrees, percent signs or units at the end, \frac and \sqrt with braces, 0.5 and a/b as
    fractions, no "k =" before it.
    """
    text = text[: 4 * LONGEST].replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac").replace("\\left", "").replace("\\right", "")
    text = text.replace("^{\\circ}", "").replace("^\\circ", "").replace("\\$", "").replace("$", "")
    text = _UNIT_TEXT.sub("", text).replace("\\%", "").replace("%", "").strip()
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    text = "0" + text if text.startswith(".") else text
    named = _NAMED.match(text)
    text = text[named.end() :] if named else text
    text = _SQRT.sub(r"\\sqrt{\1}", text).replace(" ", "")
    text = _FRAC.sub(lambda m: f"\\frac{{{m[1] or m[2]}}}{{{m[3] or m[4]}}}", text)
    if text == "0.5":
        return r"\frac{1}{2}"
    ratio = _RATIO.fullmatch(text)
    return rf"\frac{{{ratio[1]}}}{{{ratio[2]}}}" if ratio else text
