r"""Whether two answers are equal as mathematics.

Strings, then numbers, then expressions, parsed by math-verify and compared by their values
(`vlmr1.rewards.expressions`), then the string normalisation of the MATH benchmark's own scorer. A parser too can take
long over a short hostile text (deep brackets, broken LaTeX), so only forms that it is quick with are put to it; the
rest are compared by the other three.
"""

from __future__ import annotations

import logging
import math
import re
from functools import lru_cache

from vlmr1.answers.numbers import boxed, read_number
from vlmr1.answers.units import same_unit
from vlmr1.answers.words import plain
from vlmr1.rewards.expressions import same

LONGEST = 120  # characters of an expression that is put to math-verify
_DEEPEST = 3  # brackets within brackets
_MOST = 12  # operators and commands
# What is refused: exponents of three digits or with exponents of their own, other than 2^{2^3}; factorials of more
# than a short number; binomials of large ones, which are worked out when they are parsed; exponentials in exponentials.
_TOWER = re.compile(
    r"\^\s*+\{?[^{}^\s]{0,20}\^|\^\s*+\{?\s*+-?\d{3}|\*\*|!\s*+!|\d{4}\s*+!|[^\d\s]\s*+!|^\s*+!|\d{31}"
    r"|\^\s*+\{?[^{}]{0,20}\{[^{}]*\^|\\exp.*(?:\\exp|\^)|\^.*\\exp|\\binom(?!\{\d{1,3}\}\{\d{1,3}\})"
)
_SMALL_TOWER = re.compile(r"(?<![\w.^])(\d{1,3})\^\{\s*+(\d)\^\{?(\d)\}?\s*+\}")
_BINOMIAL = re.compile(r"\\[dt]?binom\s*+(?:\{\s*+(\d{1,3})\s*+\}|(\d))\s*+(?:\{\s*+(\d{1,3})\s*+\}|(\d))")
_MATRIX = re.compile(r"\\begin\{([pb]?matrix)\}([^{}]{1,80})\\end\{\1\}")
_COMMANDS = re.compile(r"\\([A-Za-z]+|.)")
_FAMILIAR = re.compile(  # the commands the parser is given
    r"[dt]?frac|sqrt|pi|infty|cdot|times|div|pm|leq?|geq?|lt|gt|neq?|approx|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan"
    r"|log|ln|exp|left|right|circ|degree|alpha|beta|gamma|theta|phi|lambda|cup|cap|in|quad|angle|binom|sum|prod|[lr]floor"
    r"|[lr]ceil|[lr]vert|%|\{|\}|,|;|!"
)
_OPERATORS = re.compile(r"[-+*/=^,;<>|_]|\\[a-z]+")
_BINARY = r"\\(?:cdot|times|div|cup|cap|le|ge|leq|geq|lt|gt)\b"
# An operator without its sides, or a function without what it is of.
_BROKEN = re.compile(
    r"[~]|%\s*+\S|_(?!\d|\{\s*+[a-z]?\s*+=?\s*+-?\d{0,3}\s*+\}|[a-z]\b)|\|.*\|.*\||^[^|]*\|[^|]*$"
    r"|[-+*/^_=<>,]\s*+(?:[*/^_=<>,)\]}%]|\\(?:text|mathrm)|$)|[({\[]\s*+[*/^_=,|)}\]]|^\s*+[*/^_=<>,]"
    r"|\\(?:[dt]?frac|sqrt|log|ln|exp)\b\s*+(?:[^\s\w({\\\[]|$)"
    r"|\\(?:sin|cos|tan)\b\s*+(?:\^(?!\{?2)|[^\s\w({\\^]|$)|\\[dt]?frac\s*+\[|\d\s*+_"
    rf"|^\s*+{_BINARY}|{_BINARY}\s*+(?:$|[)}}\]*/,^]|{_BINARY})"
)
_GREEK = {"alpha", "beta", "gamma", "theta", "phi", "lambda"}
_RUN = re.compile(r"[A-Za-z]+")
_RELATION = re.compile(r"[=<>]|\\(?:leq?|geq?|lt|gt|neq?|approx|in)\b")
_NAMED = re.compile(r"^[A-Za-z]{1,2}\s*+=\s*+")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf)\s*+\{[^{}]{0,60}+\}")
_TEXT_END = re.compile(_TEXT.pattern + r"\s*+(?:\^\{?[23]\}?)?\s*+$")
_BARE_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt\(([^()]{1,60})\)")
_BARE_NAME = re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|log|ln)(?![A-Za-z])")
_UNIT_END = re.compile(r"(?<=[\d}) ])\s*+(?:\\(?:text|mathrm)\{\s*+)?(mm|cm|km|m|mg|g|kg|ml|l|s|ms|h|in|ft)\}?$")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_ENVIRONMENT = re.compile(r"\$([^$]{1,400})\$|\\\(([^$]{1,400}?)\\\)|\\\[([^$]{1,400}?)\\\]")
_CLOSES = {")": "(", "]": "[", "}": "{"}


@lru_cache(maxsize=8192)
def equal(said: str, truth: str) -> tuple[bool, str]:
    """(whether an answer equals the truth, by what). Both as they stand in the answer; \\boxed{} and $ are allowed."""
    a, b = read_number(said)[0], read_number(truth)[0]
    if a is not None and b is not None:
        if a.unit and b.unit and not same_unit(a.unit, b.unit):
            return False, f"{a.unit} where {b.unit} is right"
        if same_number(a.value, b.value) or percent_of(a.value, a.unit, b.value, b.unit):
            return True, "the same number"
        return False, f"{a.value:g} where {b.value:g} is right"
    if plain(said) == plain(truth):
        return True, "the same text"
    mine, true = core(said), core(truth)
    if _other_unit(mine, true):
        return False, "another unit"
    if "=" in mine or "=" in true:  # an equation, and another that names its side: 2x = 4 and x = 2
        mine, true = core(said, named=True), core(truth, named=True)
    if quick(mine) and quick(true) and comparable(mine, true) and _same_expression(mine, true):
        return True, "equal as expressions"
    if normalised(mine) == normalised(true):
        return True, "the same once written alike"
    return False, "not equal"


def core(text: str, named: bool = False) -> str:
    r"""The expression in an answer: in the last \boxed{}, else the last $…$, \(…\) or \[…\], else all of it.

    A unit in \text{} behind it is left out, and "x =" before it unless `named`.
    """
    inside = boxed(text)
    if inside is None and len(text) <= 100 * LONGEST:
        found = _ENVIRONMENT.findall(text)
        inside = next(part for part in found[-1] if part) if found else None
    inside = (text if inside is None else inside).strip().rstrip(".")
    bare = _TEXT_END.sub("", inside) or _TEXT.sub(lambda m: m[0][m[0].index("{") + 1 : -1], inside)
    bare = _BARE_ROOT.sub(r"\\sqrt{\1}", _BARE_NAME.sub(r"\\\1", bare if named else _NAMED.sub("", bare, count=1)))
    return bare.strip()


def comparable(said: str, truth: str) -> bool:
    """Whether two answers may be equal at all. Of running text math-verify takes the last number, so only a number."""
    return not _is_text(said) or (not _variables(truth) and "," not in truth and not _RELATION.search(truth))


def _variables(text: str) -> set[str]:
    greek = _GREEK & set(_COMMANDS.findall(text))
    runs = _RUN.findall(_COMMANDS.sub(" ", text))
    return greek | {sign for run in runs if len(run) < 3 for sign in run} - {"e", "i"}


def _is_text(text: str) -> bool:
    return "\\" not in text and _WORD.search(text) is not None


def same_number(a: float, b: float) -> bool:
    """Whole numbers exactly; others to nine digits, or to six decimals where that is at least three digits."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (
        min(abs(a), abs(b)) >= 1e-3 and round(a, 6) == round(b, 6)
    )


def percent_of(a: float, unit_a: str, b: float, unit_b: str) -> bool:
    """Whether one is a percentage and the other the same share written bare: 50 % and 0.5."""
    if unit_a == "%" and unit_b == "":
        return same_number(a / 100, b)
    return unit_b == "%" and unit_a == "" and same_number(a, b / 100)


def quick(text: str) -> bool:
    """Whether math-verify is sure to parse the expression in a moment: short, whole and of familiar parts."""
    text = _MATRIX.sub(_rows, text) if text.startswith(r"\begin") else text
    text = _SMALL_TOWER.sub("1", _BINOMIAL.sub(_written_out, text))
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


def _rows(match: re.Match[str]) -> str:
    """A matrix as a list of its entries, which must each be short and familiar in their turn."""
    return match[2].replace("\\\\", ",").replace("&", ",")


def _written_out(match: re.Match[str]) -> str:
    return rf"\binom{{{match[1] or match[2]}}}{{{match[3] or match[4]}}}"


def _other_unit(said: str, truth: str) -> bool:
    """Whether both end in a unit, and in different ones."""
    a, b = _UNIT_END.search(said), _UNIT_END.search(truth)
    return a is not None and b is not None and not same_unit(a[1], b[1])


def _same_expression(said: str, truth: str) -> bool:
    """Both parsed as LaTeX if they look it, else as expressions in running text; then compared by value."""
    import math_verify  # sympy behind it takes a third of a second to import

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    written = [_BINOMIAL.sub(_written_out, text) for text in (said, truth)]
    trees = [math_verify.parse(_marked(text), parsing_timeout=None) for text in written]
    if not all(tree and not isinstance(tree[0], str) for tree in trees):
        return False
    return same(trees[0][0], trees[1][0])


def _marked(text: str) -> str:
    """Anything but running text between dollar signs: math-verify looks for LaTeX only there."""
    return text if _is_text(text) else f"${text}$"


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
