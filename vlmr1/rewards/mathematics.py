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

LONGEST = 120  # characters of an expression that is put to math-verify
_DEEPEST = 3  # brackets within brackets
_MOST = 12  # operators and commands
_TOWER = re.compile(r"\^\s*+\{?[^{}^\s]{0,20}\^|\^\s*+\{?\s*+-?\d{3}|\*\*|!|\d{16}|\^\s*+\{?[^{}]{0,20}\{[^{}]*\^")
_COMMANDS = re.compile(r"\\([A-Za-z]+|.)")
_FAMILIAR = re.compile(  # the commands math-verify is put to
    r"[dt]?frac|sqrt|pi|infty|cdot|times|div|pm|leq?|geq?|lt|gt|neq?|approx|sin|cos|tan|log|ln|exp"
    r"|left|right|circ|degree|alpha|beta|gamma|theta|phi|lambda|cup|cap|in|quad|angle|%|\{|\}|,|;|!"
)
_OPERATORS = re.compile(r"[-+*/=^,;<>|_]|\\[a-z]+")
_BINARY = r"\\(?:cdot|times|div|cup|cap|le|ge|leq|geq|lt|gt)\b"
# An operator without its sides, or a function without what it is of.
_BROKEN = re.compile(
    r"[|~]|%\s*+\S|_(?!\d)"
    r"|[-+*/^_=<>,|]\s*+(?:[*/^_=<>,|)\]}%]|\\(?:text|mathrm)|$)|[({\[]\s*+[*/^_=,|)}\]]|^\s*+[*/^_=<>,|]"
    r"|\\(?:[dt]?frac|sqrt|sin|cos|tan|log|ln|exp)\b\s*+(?:[^\s\w({\\\[]|$)|\\[dt]?frac\s*+\[|\d\s*+_"
    rf"|^\s*+{_BINARY}|{_BINARY}\s*+(?:$|[)}}\]*/,^]|{_BINARY})"
)
_GREEK = {"alpha", "beta", "gamma", "theta", "phi", "lambda"}
_RUN = re.compile(r"[A-Za-z]+")
_RELATION = re.compile(r"[=<>]|\\(?:leq?|geq?|lt|gt|neq?|approx|in)\b")
_LISTED = re.compile(",")
_INFINITE = re.compile("infty")
_NAMED = re.compile(r"^[A-Za-z]{1,2}\s*+=\s*+")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf)\s*+\{[^{}]{0,60}+\}")
_TEXT_END = re.compile(_TEXT.pattern + r"\s*+(?:\^\{?[23]\}?)?\s*+$")
_BARE_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt\(([^()]{1,60})\)")
_BARE_NAME = re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|log|ln)(?![A-Za-z])")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_ENVIRONMENT = re.compile(r"\$([^$]{1,400})\$|\\\(([^$]{1,400}?)\\\)|\\\[([^$]{1,400}?)\\\]")
_CLOSES = {")": "(", "]": "[", "}": "{"}


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
    mine, true = core(said), core(truth)
    if quick(mine) and quick(true) and comparable(mine, true) and _verified(mine, true):
        return True, "equal by math-verify"
    if normalised(mine) == normalised(true):
        return True, "the same once written alike"
    return False, "not equal"


def core(text: str) -> str:
    r"""The expression in an answer: in the last \boxed{}, else the last $…$, \(…\) or \[…\], else all of it.

    A unit in \text{} behind it is left out, and "x =" before it.
    """
    inside = boxed(text)
    if inside is None and len(text) <= 100 * LONGEST:
        found = _ENVIRONMENT.findall(text)
        inside = next(part for part in found[-1] if part) if found else None
    inside = (text if inside is None else inside).strip().rstrip(".")
    bare = _TEXT_END.sub("", inside) or _TEXT.sub(lambda m: m[0][m[0].index("{") + 1 : -1], inside)
    bare = _BARE_ROOT.sub(r"\\sqrt{\1}", _BARE_NAME.sub(r"\\\1", _NAMED.sub("", bare, count=1)))
    return bare.strip()


def comparable(said: str, truth: str) -> bool:
    """Whether two expressions may be equal at all: the same variables, both relations or lists or none, both infinite.

    Running text has none of these; of it math-verify takes the last number.
    """
    if _is_text(said):
        return not _variables(truth) and "," not in truth and not _RELATION.search(truth)
    return _variables(said) == _variables(truth) and all(
        bool(kind.search(said)) == bool(kind.search(truth)) for kind in (_RELATION, _LISTED, _INFINITE)
    )


def _variables(text: str) -> set[str]:
    greek = _GREEK & set(_COMMANDS.findall(text))
    runs = _RUN.findall(_COMMANDS.sub(" ", text))
    return greek | {sign for run in runs if len(run) < 3 for sign in run} - {"e", "i"}


def _is_text(text: str) -> bool:
    return "\\" not in text and _WORD.search(text) is not None


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
    """Whether math-verify is sure to be done with the expression in a moment: short, whole and of familiar parts."""
    if not 0 < len(text) <= LONGEST or not text.isprintable() or _TOWER.search(text) or _BROKEN.search(text):
        return False
    if len(_OPERATORS.findall(text)) > _MOST or not all(map(_FAMILIAR.fullmatch, _COMMANDS.findall(text))):
        return False
    if "\\" in text and _WORD.search(_TEXT.sub("", text)):
        return False  # running text around LaTeX
    open_ones: list[str] = []
    for sign in text.replace("\\{", "{").replace("\\}", "}"):
        if sign in "({[":
            open_ones.append(sign)
            if len(open_ones) > _DEEPEST:
                return False
        elif sign in _CLOSES and (not open_ones or (open_ones.pop() == "{") != (sign == "}")):
            return False  # (0, 1] is an interval, so round and square may close each other
    return not open_ones


def _verified(said: str, truth: str) -> bool:
    """math-verify's word: both parsed as LaTeX if they look it, else as expressions in running text."""
    import math_verify  # sympy behind it takes a third of a second to import

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    parsed = [math_verify.parse(_marked(text), parsing_timeout=None) for text in (truth, said)]
    return bool(math_verify.verify(parsed[0], parsed[1], timeout_seconds=None))


def _marked(text: str) -> str:
    """Anything but running text between dollar signs: math-verify looks for LaTeX only there."""
    return text if _is_text(text) else f"${text}$"


_TEXT = re.compile(r"\\(?:text|mathrm|mathbf)\s*+\{[^{}]{0,60}+\}")
_SQRT = re.compile(r"\\sqrt\s*+(\w)")
_FRAC = re.compile(r"\\frac\s*+(?:\{([^{}]{0,60}+)\}|(\w))\s*+(?:\{([^{}]{0,60}+)\}|(\w))")
_RATIO = re.compile(r"(-?\d{1,20})/(\d{1,20})")
_UNIT_TEXT = re.compile(r"\\text\{\s[^{}]{0,60}+\}\s*+$")


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
