"""Boxes and their labels in text that ought to be JSON: fenced or bare, a list or a single object, whole or broken.

A box is four numbers in brackets, under whatever key (`bbox_2d`, `bbox`, `box`, …) or under none. A label is the value
of `label`, `name`, `class` or `category` in the same object; quotes and braces may be missing, single or double.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from vlmr1.boxes import Box

# Possessive quantifiers: no backtracking, so no input makes the search slow.
_NUMBER = r"\s*+(-?+\d{1,40}+(?:\.\d{1,40}+)?+(?:[eE][-+]?+\d{1,3}+)?+)\s*+"
_BOX = rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]"
_KEY = r"(?i:label|name|class|category|class_name|category_name)"
_VALUE = r"(?:\"((?:[^\"\\]|\\.){0,400}+)\"|'((?:[^'\\]|\\.){0,400}+)'|([^\s\"',{}\[\]][^\"',{}\[\]\n]{0,400}+))"
_TOKEN = re.compile(rf"{_BOX}|(?<!\w)[\"']?+{_KEY}[\"']?+\s*+:\s*+{_VALUE}|[{{}}]", re.DOTALL)
_FENCE = re.compile(r"```")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_NOTHING = {"none", "null", "[]", "[none]", "[null]"}
FARTHEST = 1e12  # pixels: no picture is that large
NAMED = 8  # faulty boxes that are named one by one


class Found(NamedTuple):
    """A box with its label, "" where none was said."""

    box: Box
    label: str


def is_none(text: str) -> bool:
    """Whether the text says that there is nothing: `None` or an empty list, fenced or quoted or not."""
    text = text.strip()
    return len(text) < 60 and "".join(fenced(text).split()).strip("\"'`*.").lower() in _NOTHING


def fenced(text: str) -> str:
    """What stands in the last closed ``` fence, less the word `json` at its head; without a fence the text itself."""
    marks = [m.start() for m in _FENCE.finditer(text)]
    if not marks:
        return text
    whole = len(marks) - len(marks) % 2
    # An odd mark out opens a block that is cut off: it counts only where no block is closed.
    inside = text[marks[whole - 2] + 3 : marks[whole - 1]] if whole else text[marks[0] + 3 :]
    return inside[4:] if inside[:4].lower() == "json" else inside


def scan(text: str) -> tuple[tuple[Found, ...], int, list[str]]:
    """(boxes with labels in order of appearance, how many more were refused, what was wrong)."""
    boxes: list[Box] = []
    labels: list[str] = []
    faults: list[str] = []
    refused = 0
    label, first = "", 0  # of the object that is open: its label, and the place of its first box without one
    for match in _TOKEN.finditer(fenced(text)):
        kind = match.lastindex  # 4 of a box, none of a brace, above of a label
        if kind == 4:
            x0, y0, x1, y1 = map(float, match.group(1, 2, 3, 4))
            if not (0 <= x0 < x1 < FARTHEST and 0 <= y0 < y1 < FARTHEST):  # not plainly good
                wrong = _fault((x0, y0, x1, y1))
                if wrong:
                    refused += 1
                if len(faults) < NAMED:
                    faults.append(f"box {match.group(0)[:60]} {wrong or 'has a negative coordinate'}")
                if wrong:
                    continue
            boxes.append((x0, y0, x1, y1))
            labels.append(label)
        elif kind is None:
            label, first = "", len(boxes)
        else:
            label = _text(match.group(kind), quoted=kind < 7)
            labels[first:] = [label] * (len(boxes) - first)
            first = len(boxes)
    return tuple(map(Found, boxes, labels)), refused, faults


def _fault(box: Box) -> str:
    """Why four numbers are no box, or ""."""
    if not -FARTHEST < min(box) <= max(box) < FARTHEST:
        return "is beyond any picture"
    if box[2] <= box[0] or box[3] <= box[1]:
        return "is empty or inverted"
    return ""


def _text(value: str, quoted: bool) -> str:
    """A label as it was meant: JSON's escapes resolved, blanks at the ends of a bare word dropped."""
    if not quoted:
        return value.strip()
    if "\\" not in value:
        return value
    value = _ESCAPE.sub(lambda m: chr(int(m[1][1:], 16)) if len(m[1]) > 1 else _PLAIN.get(m[1], m[1]), value)
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # pairs join, halves are no text
