r"""Answers that are numbers: with units, percent signs, fractions, thousands separators, LaTeX, in \boxed{} or not.

Left out on purpose: expressions. Whether two of those are equal is for `vlmr1.rewards.mathematics`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FRACTION = re.compile(r"\\[dt]?frac\s*+(?:\{\s*+(-?[\d.]{1,30}+)\s*+\}|(\d))\s*+(?:\{\s*+(-?[\d.]{1,30}+)\s*+\}|(\d))")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*+\{([^{}]{0,60}+)\}")
_NOISE = re.compile(r"\\[!,;: ]|\\(?:left|right)\b|\$|\*\*|~")
_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:,\d{3}){1,10}(?!\d)")
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
_NAME = re.compile(r"^\s*[A-Za-z]\w{0,9}\s*(?:=|:|\\approx|≈)\s*")
_STATED = re.compile(
    r"^\s*+(?i:(?:so|thus|hence|therefore)\b,?\s*+)?(?i:the\s++)?(?i:final\s++|correct\s++)?(?i:answer)\s*+(?:(?i:is)\b:?|=|:)\s*+"
)
LONGEST = 400  # characters: a longer text is no number


@dataclass(frozen=True, slots=True)
class Number:
    """A value with its unit as written, "%" for a percentage, "" for a bare number. The value of 50 % is 50."""

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

    None where it is more, or none.
    """
    inside = boxed(text)
    text = (text if inside is None else inside).strip()
    if len(text) > LONGEST:
        return None, "too long for a number"
    text = _NAME.sub("", _CURRENCY.sub("", _STATED.sub("", _NOISE.sub("", _DEGREES.sub("°", text))))).strip()
    text = _TEXT.sub(r" \1 ", text)
    text = _FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text)
    text = _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text).strip()
    match = _NUMBER.match(text)
    if match is None:
        return None, "no number"
    try:
        value = float(match["top"].replace("−", "-").replace(" ", ""))
        if match["under"]:
            value /= float(match["under"])
        if match["whole"]:
            value = float(match["whole"]) + (value if not match["whole"].startswith("-") else -value)
        end = match.end()
        power = _POWER.match(text, end)
        if power:
            value, end = value * 10.0 ** int(power[1]), power.end()
    except (ZeroDivisionError, OverflowError, ValueError):
        return None, "no finite number"
    unit = _UNIT.fullmatch(text, end)
    if unit is None:
        return None, "more than a number"
    if not abs(value) < 1e300:
        return None, "no finite number"
    return Number(value, (unit[1] or "").strip(" .").removeprefix("\\")), "a number"
