r"""Answers that are numbers: with units, percent signs, fractions, thousands separators, LaTeX, in \boxed{} or not.

Left out on purpose: expressions. Whether two of those are equal is for `vlmr1.rewards.mathematics`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_FRACTION = re.compile(r"\\[dt]?frac\s*+(?:\{\s*+(-?[\d.]{1,30}+)\s*+\}|(\d))\s*+(?:\{\s*+(-?[\d.]{1,30}+)\s*+\}|(\d))")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*+\{([^{}]{0,60}+)\}")
_NOISE = re.compile(r"\\[!,;: ()\[\]]|\\(?:left|right)\b|\\?\$|\*\*|[~`]")
_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:(?:,\d{3}){1,10}|(?:[ \u00a0\u2009\u202f]\d{3}){1,10})(?![\d/])")
_NOT_DIGITS = re.compile(r"\D")
_WRAPPED = re.compile(r"\(([^()]*)\)\.?")
_DEGREES = re.compile(r"\^\s*+\{?\s*+\\circ\s*+\}?|\\degree")
_NUMBER = re.compile(
    r"(?P<whole>[-+]?\d{1,40}(?=\s+\d{1,9}/\d))?\s*"
    r"(?P<top>[-+−]?\s?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,3})?)"
    r"(?:\s*/\s*(?P<under>\d{1,40}(?:\.\d{1,40})?))?"
)
_POWER = re.compile(r"\s*(?:\\times|×|\\cdot|\*)\s*10\s*\^\s*\{?\s*([-+]?\d{1,3})\s*\}?")
_WORD = r"(?![a-fijn-rt-z](?![A-Za-z/·]))[A-Za-zµμ€£¥Ω²³/·.]{1,20}+(?:\^\{?-?\d\}?|(?<=[a-z])\d)?"
# No possessive group that captures: Python before 3.11.5 loses its end.
_UNIT = re.compile(
    rf"\s*+(\\?%|°(?:\s?[CF]\b)?|(?!(?:or|and|to)\b){_WORD}(?: (?!(?:or|and|to)\b){_WORD}){{0,2}}+)?\s*+[.,;!]*+\s*+"
)
_CURRENCY = re.compile(r"^[\s(]*(?:\\?\$|[€£¥]|US\$|Rs\.?)\s*")
_NAME = re.compile(r"^\s*+(?:(?i:so|thus|hence|therefore),?\s++)?(?:[A-Za-z]\w{0,9}\s*)?(?:=|:|\\approx|≈)\s*")
_ABOUT = re.compile(r"^\s*+(?i:about|approximately|approx\.?|around|roughly|nearly)\s++")
_SCALE = re.compile(r"\s*+(hundred|thousand|million|billion|trillion)\b", re.IGNORECASE)
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PERCENT = re.compile(r"per ?cents?", re.IGNORECASE)
_STATED = re.compile(
    r"\s*+(?i:(?:so|thus|hence|therefore)\b,?\s*+)?(?i:the\s++)?(?i:final\s++|correct\s++)?(?i:answer)\s*+(?:(?i:is)\b:?|=|:)\s*+"
)
LONGEST = 400  # characters: a longer text is no number


@dataclass(frozen=True, slots=True)
class Number:
    """A value with its unit as written, "%" for a percentage, "" for a bare number. The value of 50 % is 50.

    A whole number is an int, however long.
    """

    value: float
    unit: str


def boxed(text: str) -> str | None:
    r"""What stands in the last \boxed{…} whose braces close, or None."""
    start = text.rfind(r"\boxed")
    if start < 0:
        return None
    depth, opened = 0, -1
    for at in range(start + 6, min(len(text), start + 6 + 4 * LONGEST)):
        if text[at] == "{":
            depth += 1
            opened = at if opened < 0 else opened
        elif text[at] == "}":
            depth -= 1
            if depth <= 0:
                return text[opened + 1 : at] if opened >= 0 else None
        elif opened < 0 and not text[at].isspace():
            return None
    return None


def read_number(text: str) -> tuple[Number | None, str]:
    """(number, how it was read): the text is one number, perhaps with words that announce it, a name or a unit.

    Or its last sentence is "the answer is" such a number. None where it is more, or none.
    """
    inside = boxed(text)
    text = (text if inside is None else inside).strip()
    number, how = _whole(text)
    at = text.lower().rfind("answer") if number is None else -1
    if at > 0:
        stated = _STATED.match(text, at)
        if stated:
            return _whole(text[stated.end() :])
    return number, how


def _whole(text: str) -> tuple[Number | None, str]:
    """The number that all of the text is."""
    if len(text) > LONGEST:
        return None, "too long for a number"
    text = _NOISE.sub("", _DEGREES.sub("°", text.replace("{,}", ",")))
    stated = _STATED.match(text)
    text = _ABOUT.sub("", _NAME.sub("", _CURRENCY.sub("", text[stated.end() if stated else 0 :]))).strip()
    wrapped = _WRAPPED.fullmatch(text)
    text = _TEXT.sub(r" \1 ", wrapped[1] if wrapped else text).replace(" ^", "^")
    text = _FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text)
    text = _THOUSANDS.sub(lambda m: _NOT_DIGITS.sub("", m[0]), text).strip()
    match = _NUMBER.match(text)
    if match is None:
        return None, "no number"
    value, end = _value(match), match.end()
    if value is None:
        return None, "no finite number"
    power = _POWER.match(text, end)
    if power:
        value, end = value * 10.0 ** int(power[1]) if abs(int(power[1])) < 300 else math.inf, power.end()
    scale = _SCALE.match(text, end)
    if scale:
        value, end = value * _SCALES[scale[1].lower()], scale.end()
    unit = _UNIT.fullmatch(text, end)
    if unit is None or text.startswith("!", end):  # 5! is 120
        return None, "more than a number"
    if not abs(value) < 1e300:
        return None, "no finite number"
    written = (unit[1] or "").strip(" .").removeprefix("\\")
    return Number(value, "%" if _PERCENT.fullmatch(written) else written), "a number"


def _value(match: re.Match[str]) -> float | None:
    """What the digits say; None for a division by zero or a value beyond floating point."""
    top = "".join(match["top"].replace("−", "-").split())
    value: float = int(top.rstrip(".")) if top.rstrip(".").lstrip("+-").isdecimal() else float(top)
    if match["under"]:
        under = float(match["under"])
        if under == 0:
            return None
        value /= under
    if match["whole"]:
        value = float(match["whole"]) + (value if not match["whole"].startswith("-") else -value)
    return value
